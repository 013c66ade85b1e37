<!-- What stands both in the policy as a whole and in a host. -->
<leafNode name="mode">
  <properties>
    <help>Block, or only record what would be blocked</help>
    <completionHelp>
      <list>enforce monitor</list>
    </completionHelp>
    <valueHelp>
      <format>enforce</format>
      <description>Block what is not allowed</description>
    </valueHelp>
    <valueHelp>
      <format>monitor</format>
      <description>Let pass, and record what would be blocked</description>
    </valueHelp>
    <constraint>
      <regex>(enforce|monitor)</regex>
    </constraint>
    <constraintErrorMessage>mode must be enforce or monitor</constraintErrorMessage>
  </properties>
</leafNode>
<tagNode name="domain">
  <properties>
    <help>Domain that may be reached</help>
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
    <constraintErrorMessage>domain must be a name such as api.example.com or *.example.com</constraintErrorMessage>
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
    #include <include/clawgress/time-window.xml.i>
  </children>
</tagNode>
#include <include/clawgress/domain-list.xml.i>
<tagNode name="domain-time-window">
  <properties>
    <help>Window of a domain that a wildcard or another allowlist allows</help>
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
    <constraintErrorMessage>domain-time-window must be a name such as api.example.com or *.example.com</constraintErrorMessage>
  </properties>
  <children>
    #include <include/clawgress/window.xml.i>
  </children>
</tagNode>
<leafNode name="ip">
  <properties>
    <help>Address or network that may be reached</help>
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
    <constraintErrorMessage>ip must be an address or a network, such as 192.0.2.0/24</constraintErrorMessage>
    <multi/>
  </properties>
</leafNode>
<leafNode name="port">
  <properties>
    <help>Destination port that may be reached, TCP and UDP alike; without one: 53, 80 and 443</help>
    <valueHelp>
      <format>u32:1-65535</format>
      <description>Port number</description>
    </valueHelp>
    <constraint>
      <validator name="numeric" argument="--range 1-65535"/>
    </constraint>
    <constraintErrorMessage>port must be a number from 1 to 65535</constraintErrorMessage>
    <multi/>
  </properties>
</leafNode>
<leafNode name="allow-none">
  <properties>
    <help>Allow nothing of this kind, not even what is inherited or the default</help>
    <completionHelp>
      <list>domain domain-list ip port</list>
    </completionHelp>
    <valueHelp>
      <format>domain</format>
      <description>No domain</description>
    </valueHelp>
    <valueHelp>
      <format>domain-list</format>
      <description>No list of domains</description>
    </valueHelp>
    <valueHelp>
      <format>ip</format>
      <description>No address</description>
    </valueHelp>
    <valueHelp>
      <format>port</format>
      <description>No port</description>
    </valueHelp>
    <constraint>
      <regex>(domain|domain-list|ip|port)</regex>
    </constraint>
    <constraintErrorMessage>allow-none must be one of domain, domain-list, ip, port</constraintErrorMessage>
    <multi/>
  </properties>
</leafNode>
<node name="deny">
  <properties>
    <help>What may never be reached; wins over everything allowed</help>
  </properties>
  <children>
    <leafNode name="domain">
      <properties>
        <help>Domain that may never be reached</help>
        <valueHelp>
          <format>fqdn</format>
          <description>That one name, such as ads.example.com</description>
        </valueHelp>
        <valueHelp>
          <format>*.fqdn</format>
          <description>Every name below it, and not the name itself</description>
        </valueHelp>
        <constraint>
          <validator name="clawgress-value" argument="domain"/>
        </constraint>
        <constraintErrorMessage>domain must be a name such as ads.example.com or *.example.com</constraintErrorMessage>
        <multi/>
      </properties>
    </leafNode>
    <leafNode name="ip">
      <properties>
        <help>Address or network that may never be reached</help>
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
        <constraintErrorMessage>ip must be an address or a network, such as 192.0.2.0/24</constraintErrorMessage>
        <multi/>
      </properties>
    </leafNode>
    #include <include/clawgress/domain-list.xml.i>
  </children>
</node>
<leafNode name="rate-limit-kbps">
  <properties>
    <help>Rate limit of all egress, kilobits (1000 bits) per second</help>
    <valueHelp>
      <format>u32:1-1000000000000</format>
      <description>Kilobits per second</description>
    </valueHelp>
    <constraint>
      <validator name="numeric" argument="--range 1-1000000000000"/>
    </constraint>
    <constraintErrorMessage>rate-limit-kbps must be a number from 1 to 1000000000000</constraintErrorMessage>
  </properties>
</leafNode>
#include <include/clawgress/time-window.xml.i>
