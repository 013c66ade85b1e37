<!-- Who may talk to what, when, how fast and how much: the policy, version 1. -->
<node name="policy">
  <properties>
    <help>Who may talk to what; what is not allowed here is blocked</help>
  </properties>
  <children>
    <leafNode name="time-zone">
      <properties>
        <help>Time zone of windows and daily caps; without it: that of the system</help>
        <completionHelp>
          <script>timedatectl --no-pager list-timezones</script>
        </completionHelp>
        <valueHelp>
          <format>txt</format>
          <description>IANA name, such as Europe/Berlin</description>
        </valueHelp>
        <constraint>
          <validator name="clawgress-value" argument="time-zone"/>
        </constraint>
        <constraintErrorMessage>time-zone must be an IANA name, such as Europe/Berlin or UTC</constraintErrorMessage>
      </properties>
    </leafNode>
    <node name="scope">
      <properties>
        <help>Traffic that the policy is about; without it: every forwarded packet</help>
      </properties>
      <children>
        <leafNode name="source">
          <properties>
            <help>Police only packets from this address or network</help>
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
            <constraintErrorMessage>source must be an address or a network, such as 192.168.10.0/24</constraintErrorMessage>
            <multi/>
          </properties>
        </leafNode>
        <leafNode name="interface">
          <properties>
            <help>Police only packets that enter by this interface</help>
            <completionHelp>
              <script>${vyos_completion_dir}/list_interfaces</script>
            </completionHelp>
            <valueHelp>
              <format>txt</format>
              <description>Interface name</description>
            </valueHelp>
            <constraint>
              <validator name="clawgress-value" argument="interface"/>
            </constraint>
            <constraintErrorMessage>interface must be a name of at most 15 characters, such as eth1 or eth1.20</constraintErrorMessage>
            <multi/>
          </properties>
        </leafNode>
      </children>
    </node>
    #include <include/clawgress/rules.xml.i>
    <tagNode name="domain-label">
      <properties>
        <help>Label of a domain that a wildcard or a host's allowlist allows</help>
        <valueHelp>
          <format>fqdn</format>
          <description>That one name, such as api.example.com</description>
        </valueHelp>
        <valueHelp>
          <format>*.fqdn</format>
          <description>Every name below it, and not the name itself</description>
        </valueHelp>
        <constraint>
          <validator name="clawgress-value" argument="domain"/>
        </constraint>
        <constraintErrorMessage>domain-label must be a name such as api.example.com or *.example.com</constraintErrorMessage>
      </properties>
      <children>
        <leafNode name="label">
          <properties>
            <help>Word repeated in logs and telemetry of this domain</help>
            <valueHelp>
              <format>txt</format>
              <description>Label, such as llm-provider (at most 64 characters)</description>
            </valueHelp>
            <constraint>
              <validator name="clawgress-value" argument="label"/>
            </constraint>
            <constraintErrorMessage>label must be a word of at most 64 characters</constraintErrorMessage>
          </properties>
        </leafNode>
      </children>
    </tagNode>
    #include <include/clawgress/host.xml.i>
  </children>
</node>
