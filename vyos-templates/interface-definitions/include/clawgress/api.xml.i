<!-- The REST listener. No default values here: they would make the node appear where nobody set it. -->
<node name="api">
  <properties>
    <help>REST API</help>
  </properties>
  <children>
    <leafNode name="listen-address">
      <properties>
        <help>Address that the API listens on (default: 127.0.0.1)</help>
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
      </properties>
    </leafNode>
    <leafNode name="port">
      <properties>
        <help>Port that the API listens on (default: 8787)</help>
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
    <node name="tls">
      <properties>
        <help>Encryption; without it: plain HTTP</help>
      </properties>
      <children>
        <leafNode name="certificate">
          <properties>
            <help>Certificate with its private key</help>
            <completionHelp>
              <path>pki certificate</path>
            </completionHelp>
            <valueHelp>
              <format>txt</format>
              <description>Name of a certificate in the configuration (pki certificate)</description>
            </valueHelp>
            <constraint>
              <regex>[A-Za-z0-9._-]{1,127}</regex>
            </constraint>
            <constraintErrorMessage>certificate must be the name of a pki certificate</constraintErrorMessage>
          </properties>
        </leafNode>
        <leafNode name="ca-certificate">
          <properties>
            <help>Intermediate certificate, sent with the certificate</help>
            <completionHelp>
              <path>pki ca</path>
            </completionHelp>
            <valueHelp>
              <format>txt</format>
              <description>Name of an authority in the configuration (pki ca)</description>
            </valueHelp>
            <constraint>
              <regex>[A-Za-z0-9._-]{1,127}</regex>
            </constraint>
            <constraintErrorMessage>ca-certificate must be the name of a pki ca</constraintErrorMessage>
            <multi/>
          </properties>
        </leafNode>
      </children>
    </node>
    <node name="keys">
      <properties>
        <help>Who may call</help>
      </properties>
      <children>
        <tagNode name="id">
          <properties>
            <help>Name by which logs call the key</help>
            <valueHelp>
              <format>txt</format>
              <description>Name of the key</description>
            </valueHelp>
            <constraint>
              <regex>[A-Za-z0-9._-]{1,63}</regex>
            </constraint>
            <constraintErrorMessage>id must be 1 to 63 letters, digits, dots, hyphens and underscores</constraintErrorMessage>
          </properties>
          <children>
            <leafNode name="key">
              <properties>
                <help>The secret, sent with each call</help>
                <valueHelp>
                  <format>txt</format>
                  <description>Secret of 1 to 256 characters</description>
                </valueHelp>
                <constraint>
                  <regex>[A-Za-z0-9!#%*+,./:=?@^_~-]{1,256}</regex>
                </constraint>
                <constraintErrorMessage>key must be 1 to 256 letters, digits or characters of !#%*+,./:=?@^_~-</constraintErrorMessage>
                <secret/>
              </properties>
            </leafNode>
            <leafNode name="role">
              <properties>
                <help>What the key may do</help>
                <completionHelp>
                  <list>read write</list>
                </completionHelp>
                <valueHelp>
                  <format>read</format>
                  <description>Ask</description>
                </valueHelp>
                <valueHelp>
                  <format>write</format>
                  <description>Ask, and change the policy</description>
                </valueHelp>
                <constraint>
                  <regex>(read|write)</regex>
                </constraint>
                <constraintErrorMessage>role must be read or write</constraintErrorMessage>
              </properties>
              <defaultValue>read</defaultValue>
            </leafNode>
          </children>
        </tagNode>
      </children>
    </node>
    <leafNode name="metrics">
      <properties>
        <help>Answer GET /metrics, without key</help>
        <valueless/>
      </properties>
    </leafNode>
  </children>
</node>
