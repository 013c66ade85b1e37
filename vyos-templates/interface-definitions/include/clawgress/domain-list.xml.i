<!-- Names from a file, for more of them than the configuration should hold. -->
<tagNode name="domain-list">
  <properties>
    <help>List of domains in a file</help>
    <valueHelp>
      <format>txt</format>
      <description>Name of the list</description>
    </valueHelp>
    <constraint>
      <regex>[A-Za-z0-9._-]{1,63}</regex>
    </constraint>
    <constraintErrorMessage>domain-list name must be 1 to 63 letters, digits, dots, hyphens and underscores</constraintErrorMessage>
  </properties>
  <children>
    <leafNode name="file">
      <properties>
        <help>File with the names</help>
        <valueHelp>
          <format>filename</format>
          <description>Absolute path; keep it below /config to have it after an image upgrade</description>
        </valueHelp>
        <constraint>
          <validator name="clawgress-value" argument="file"/>
        </constraint>
        <constraintErrorMessage>file must be an absolute path, such as /config/clawgress/lists/names.txt</constraintErrorMessage>
      </properties>
    </leafNode>
    <leafNode name="format">
      <properties>
        <help>How the file is written</help>
        <completionHelp>
          <list>domains hosts rpz adblock</list>
        </completionHelp>
        <valueHelp>
          <format>domains</format>
          <description>One name a line</description>
        </valueHelp>
        <valueHelp>
          <format>hosts</format>
          <description>Lines of a hosts file</description>
        </valueHelp>
        <valueHelp>
          <format>rpz</format>
          <description>A response-policy zone</description>
        </valueHelp>
        <valueHelp>
          <format>adblock</format>
          <description>Lines of an ad blocker's list</description>
        </valueHelp>
        <constraint>
          <regex>(domains|hosts|rpz|adblock)</regex>
        </constraint>
        <constraintErrorMessage>format must be one of domains, hosts, rpz, adblock</constraintErrorMessage>
      </properties>
      <defaultValue>domains</defaultValue>
    </leafNode>
  </children>
</tagNode>
