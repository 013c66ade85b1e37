<!-- The zones for other name servers. No default values here: they would make the node appear where nobody set it. -->
<node name="rpz">
  <properties>
    <help>Policy's names as response-policy zones for other name servers</help>
  </properties>
  <children>
    <leafNode name="listen-address">
      <properties>
        <help>Address that name servers fetch the zones from; they are told of changes from it</help>
        <completionHelp>
          <script>${vyos_completion_dir}/list_local_ips.sh --both</script>
        </completionHelp>
        <valueHelp>
          <format>ipv4</format>
          <description>IPv4 address</description>
        </valueHelp>
        <valueHelp>
          <format>ipv6</format>
          <description>IPv6 address</description>
        </valueHelp>
        <constraint>
          <validator name="ip-address"/>
        </constraint>
        <constraintErrorMessage>listen-address must be an IP address</constraintErrorMessage>
        <multi/>
      </properties>
    </leafNode>
    <leafNode name="port">
      <properties>
        <help>Port of these addresses (default: 5300)</help>
        <valueHelp>
          <format>u32:1-65535</format>
          <description>Port number</description>
        </valueHelp>
        <constraint>
          <validator name="numeric" argument="--range 1-65535"/>
        </constraint>
        <constraintErrorMessage>port must be a number from 1 to 65535</constraintErrorMessage>
      </properties>
    </leafNode>
    <tagNode name="secondary">
      <properties>
        <help>Name server that follows the zones</help>
        <valueHelp>
          <format>txt</format>
          <description>Name for it, here only</description>
        </valueHelp>
        <constraint>
          <regex>[A-Za-z0-9._-]{1,63}</regex>
        </constraint>
        <constraintErrorMessage>secondary must be 1 to 63 letters, digits, dots, hyphens and underscores</constraintErrorMessage>
      </properties>
      <children>
        <leafNode name="address">
          <properties>
            <help>Address that it asks from</help>
            <valueHelp>
              <format>ipv4</format>
              <description>IPv4 address</description>
            </valueHelp>
            <valueHelp>
              <format>ipv6</format>
              <description>IPv6 address</description>
            </valueHelp>
            <constraint>
              <validator name="ip-address"/>
            </constraint>
            <constraintErrorMessage>address must be an IP address</constraintErrorMessage>
          </properties>
        </leafNode>
        <leafNode name="port">
          <properties>
            <help>Port at which it is told of changes (default: 53)</help>
            <valueHelp>
              <format>u32:1-65535</format>
              <description>Port number</description>
            </valueHelp>
            <constraint>
              <validator name="numeric" argument="--range 1-65535"/>
            </constraint>
            <constraintErrorMessage>port must be a number from 1 to 65535</constraintErrorMessage>
          </properties>
        </leafNode>
        <leafNode name="key">
          <properties>
            <help>Name of the key that signs (TSIG)</help>
            <valueHelp>
              <format>txt</format>
              <description>Domain name</description>
            </valueHelp>
            <constraint>
              <regex>[A-Za-z0-9_-]{1,63}([.][A-Za-z0-9_-]{1,63}){0,3}</regex>
            </constraint>
            <constraintErrorMessage>key must be a domain name of letters, digits, hyphens and underscores</constraintErrorMessage>
          </properties>
        </leafNode>
        <leafNode name="algorithm">
          <properties>
            <help>Hash of the signatures (default: hmac-sha256)</help>
            <completionHelp>
              <list>hmac-sha256 hmac-sha384 hmac-sha512</list>
            </completionHelp>
            <valueHelp>
              <format>hmac-sha256</format>
              <description>HMAC with SHA-256</description>
            </valueHelp>
            <valueHelp>
              <format>hmac-sha384</format>
              <description>HMAC with SHA-384</description>
            </valueHelp>
            <valueHelp>
              <format>hmac-sha512</format>
              <description>HMAC with SHA-512</description>
            </valueHelp>
            <constraint>
              <regex>(hmac-sha256|hmac-sha384|hmac-sha512)</regex>
            </constraint>
            <constraintErrorMessage>algorithm must be hmac-sha256, hmac-sha384 or hmac-sha512</constraintErrorMessage>
          </properties>
        </leafNode>
        <leafNode name="secret-file">
          <properties>
            <help>File with the key's secret in base 64</help>
            <valueHelp>
              <format>txt</format>
              <description>Absolute path; below /config it outlives an image upgrade</description>
            </valueHelp>
            <constraint>
              <regex>/[A-Za-z0-9._/+-]{1,254}</regex>
            </constraint>
            <constraintErrorMessage>secret-file must be an absolute path</constraintErrorMessage>
          </properties>
        </leafNode>
        <leafNode name="unsigned">
          <properties>
            <help>Its address is proof enough; for servers that cannot sign</help>
            <valueless/>
          </properties>
        </leafNode>
        <leafNode name="host">
          <properties>
            <help>Host whose zones it may have; without one: all zones</help>
            <completionHelp>
              <path>service clawgress policy host</path>
              <list>*</list>
            </completionHelp>
            <valueHelp>
              <format>txt</format>
              <description>Name of a host of the policy</description>
            </valueHelp>
            <valueHelp>
              <format>*</format>
              <description>Sources that belong to no host</description>
            </valueHelp>
            <constraint>
              <regex>[A-Za-z0-9._-]{1,63}</regex>
              <regex>[*]</regex>
            </constraint>
            <constraintErrorMessage>host must be the name of a host of the policy, or *</constraintErrorMessage>
            <multi/>
          </properties>
        </leafNode>
      </children>
    </tagNode>
  </children>
</node>
