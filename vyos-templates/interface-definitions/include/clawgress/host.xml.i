<!-- One block of agents, known by their source addresses. -->
<tagNode name="host">
  <properties>
    <help>Agents with rights of their own</help>
    <valueHelp>
      <format>txt</format>
      <description>Name of the host, repeated in logs and telemetry</description>
    </valueHelp>
    <constraint>
      <regex>[A-Za-z0-9._-]{1,63}</regex>
    </constraint>
    <constraintErrorMessage>host name must be 1 to 63 letters, digits, dots, hyphens and underscores</constraintErrorMessage>
  </properties>
  <children>
    <leafNode name="source">
      <properties>
        <help>Address or network of the agents; the most specific of all hosts counts</help>
        <valueHelp>
          <format>ipv4</format>
          <description>IPv4 address</description>
        </valueHelp>
        <valueHelp>
          <format>ipv4net</format>
          <description>IPv4 network</description>
        </valueHelp>
        <valueHelp>
          <format>ipv6</format>
          <description>IPv6 address</description>
        </valueHelp>
        <valueHelp>
          <format>ipv6net</format>
          <description>IPv6 network</description>
        </valueHelp>
        <constraint>
          <validator name="clawgress-value" argument="network"/>
        </constraint>
        <constraintErrorMessage>source must be an address or a network, such as 192.168.10.10/32</constraintErrorMessage>
        <multi/>
      </properties>
    </leafNode>
    #include <include/clawgress/rules.xml.i>
    <node name="exfil">
      <properties>
        <help>Limits on how much is uploaded</help>
      </properties>
      <children>
        <tagNode name="domain">
          <properties>
            <help>Domain to which uploads are counted</help>
            <valueHelp>
              <format>fqdn</format>
              <description>That one name, such as api.example.com</description>
            </valueHelp>
            <valueHelp>
              <format>*.fqdn</format>
              <description>Every name below it together, and not the name itself</description>
            </valueHelp>
            <constraint>
              <validator name="clawgress-value" argument="domain"/>
            </constraint>
            <constraintErrorMessage>domain must be a name such as api.example.com or *.example.com</constraintErrorMessage>
          </properties>
          <children>
            <leafNode name="bytes">
              <properties>
                <help>Bytes that may be uploaded in one period</help>
                <valueHelp>
                  <format>u64:1-9007199254740991</format>
                  <description>Bytes of IP packets</description>
                </valueHelp>
                <constraint>
                  <validator name="numeric" argument="--range 1-9007199254740991"/>
                </constraint>
                <constraintErrorMessage>bytes must be a number from 1 to 9007199254740991</constraintErrorMessage>
              </properties>
            </leafNode>
            <leafNode name="period">
              <properties>
                <help>Period after which the count starts again, aligned to the clock</help>
                <completionHelp>
                  <list>second minute hour day</list>
                </completionHelp>
                <valueHelp>
                  <format>second</format>
                  <description>Every second</description>
                </valueHelp>
                <valueHelp>
                  <format>minute</format>
                  <description>Every full minute</description>
                </valueHelp>
                <valueHelp>
                  <format>hour</format>
                  <description>Every full hour</description>
                </valueHelp>
                <valueHelp>
                  <format>day</format>
                  <description>Every midnight in the policy's time zone</description>
                </valueHelp>
                <constraint>
                  <regex>(second|minute|hour|day)</regex>
                </constraint>
                <constraintErrorMessage>period must be one of second, minute, hour, day</constraintErrorMessage>
              </properties>
              <defaultValue>hour</defaultValue>
            </leafNode>
          </children>
        </tagNode>
      </children>
    </node>
  </children>
</tagNode>
