# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_clawgress_global_optspecs
    string join \n config= h/help V/version
end

function __fish_clawgress_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_clawgress_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_clawgress_using_subcommand
    set -l cmd (__fish_clawgress_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c clawgress -n "__fish_clawgress_needs_command" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_needs_command" -s h -l help -d 'Print help'
complete -c clawgress -n "__fish_clawgress_needs_command" -s V -l version -d 'Print version'
complete -c clawgress -n "__fish_clawgress_needs_command" -f -a "run" -d 'Enforce the stored policy: the daemon, in the foreground'
complete -c clawgress -n "__fish_clawgress_needs_command" -f -a "early" -d 'Enforce the last policy before the daemon runs: at boot, before there is a network'
complete -c clawgress -n "__fish_clawgress_needs_command" -f -a "check" -d 'Tell whether a policy is valid: every mistake with its place'
complete -c clawgress -n "__fish_clawgress_needs_command" -f -a "plan" -d 'Tell what a policy would change: what it opens and shuts, which flows it cuts, what agents would notice'
complete -c clawgress -n "__fish_clawgress_needs_command" -f -a "apply" -d 'Enforce the stored policy again, or another one without storing it'
complete -c clawgress -n "__fish_clawgress_needs_command" -f -a "import" -d 'Validate, enforce and store a policy: all or nothing'
complete -c clawgress -n "__fish_clawgress_needs_command" -f -a "show" -d 'Print the stored policy, or a file, in normal form'
complete -c clawgress -n "__fish_clawgress_needs_command" -f -a "status" -d 'Print the state: what is in force, since when, and whether all is well'
complete -c clawgress -n "__fish_clawgress_needs_command" -f -a "health" -d 'Run the checks; exit status 1 when one fails'
complete -c clawgress -n "__fish_clawgress_needs_command" -f -a "firewall" -d 'Print the table as the kernel holds it'
complete -c clawgress -n "__fish_clawgress_needs_command" -f -a "rpz" -d 'Print the DNS policy as a response-policy zone'
complete -c clawgress -n "__fish_clawgress_needs_command" -f -a "explain" -d 'Tell what would happen to a query or a connection, and which line of the policy says so'
complete -c clawgress -n "__fish_clawgress_needs_command" -f -a "telemetry" -d 'Print who used how much, and what was refused'
complete -c clawgress -n "__fish_clawgress_needs_command" -f -a "stats" -d 'Print totals and the top lists of the last 24 hours'
complete -c clawgress -n "__fish_clawgress_needs_command" -f -a "log" -d 'Print decision records: who was refused what, when, why, and by which line of the policy'
complete -c clawgress -n "__fish_clawgress_needs_command" -f -a "history" -d 'Print the revisions, newest first'
complete -c clawgress -n "__fish_clawgress_needs_command" -f -a "rollback" -d 'Enforce and store an earlier revision again'
complete -c clawgress -n "__fish_clawgress_needs_command" -f -a "confirm" -d 'Let the policy stay that was applied with --confirm'
complete -c clawgress -n "__fish_clawgress_needs_command" -f -a "teardown" -d 'Stop enforcing: remove the table from the kernel, so that everything passes'
complete -c clawgress -n "__fish_clawgress_needs_command" -f -a "generate" -d 'Print the policy\'s JSON Schema, the REST API\'s OpenAPI document, manual pages or shell completions'
complete -c clawgress -n "__fish_clawgress_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c clawgress -n "__fish_clawgress_using_subcommand run" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c clawgress -n "__fish_clawgress_using_subcommand early" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand early" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c clawgress -n "__fish_clawgress_using_subcommand check" -l policy -d 'The policy; - reads standard input [default: the stored policy]' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand check" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand check" -l json -d 'Print { valid, errors, warnings, not_enforced }'
complete -c clawgress -n "__fish_clawgress_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c clawgress -n "__fish_clawgress_using_subcommand plan" -l policy -d 'The policy; - reads standard input' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand plan" -l hours -d 'Decide the recorded decisions of so many hours again' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand plan" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand plan" -l json -d 'Print { revision, sha256, same, changes, flows, leases, replay, warnings, trouble }'
complete -c clawgress -n "__fish_clawgress_using_subcommand plan" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c clawgress -n "__fish_clawgress_using_subcommand apply" -l policy -d 'Enforce this policy and store nothing; - reads standard input' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand apply" -l confirm -d 'Go back after this time, unless confirmed' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand apply" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand apply" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c clawgress -n "__fish_clawgress_using_subcommand import" -l policy -d 'The policy; - reads standard input' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand import" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c clawgress -n "__fish_clawgress_using_subcommand show" -l policy -d 'Print this policy; - reads standard input' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand show" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand show" -l json -d 'For symmetry: a policy is JSON anyway'
complete -c clawgress -n "__fish_clawgress_using_subcommand show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c clawgress -n "__fish_clawgress_using_subcommand status" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand status" -l json -d 'Print JSON'
complete -c clawgress -n "__fish_clawgress_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c clawgress -n "__fish_clawgress_using_subcommand health" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand health" -l json -d 'Print JSON'
complete -c clawgress -n "__fish_clawgress_using_subcommand health" -s h -l help -d 'Print help'
complete -c clawgress -n "__fish_clawgress_using_subcommand firewall" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand firewall" -l json -d 'Print { text }'
complete -c clawgress -n "__fish_clawgress_using_subcommand firewall" -s h -l help -d 'Print help'
complete -c clawgress -n "__fish_clawgress_using_subcommand rpz" -l host -d 'The zone as this host sees it' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand rpz" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand rpz" -l json -d 'Print { text }'
complete -c clawgress -n "__fish_clawgress_using_subcommand rpz" -s h -l help -d 'Print help'
complete -c clawgress -n "__fish_clawgress_using_subcommand explain" -l source -d 'The agent\'s address' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand explain" -l domain -d 'A name the agent asks for or connects to' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand explain" -l ip -d 'An address the agent connects to' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand explain" -l port -d 'The destination port' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand explain" -l protocol -d 'The protocol of the port [default: tcp]' -r -f -a "tcp\t''
udp\t''"
complete -c clawgress -n "__fish_clawgress_using_subcommand explain" -l at -d 'When, such as 2026-11-20T09:00:00+01:00 (RFC 3339) [default: now]' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand explain" -l policy -d 'Ask this policy instead of the daemon; - reads standard input' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand explain" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand explain" -l json -d 'Print { verdict, reason, path, host, domain, mode, detail }'
complete -c clawgress -n "__fish_clawgress_using_subcommand explain" -s h -l help -d 'Print help'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and not __fish_seen_subcommand_from agents domains agent domain denies export help" -l window -d 'The last: 1m, 5m, 1h, 24h [default: 1h]' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and not __fish_seen_subcommand_from agents domains agent domain denies export help" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and not __fish_seen_subcommand_from agents domains agent domain denies export help" -l json -d 'Print JSON'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and not __fish_seen_subcommand_from agents domains agent domain denies export help" -s h -l help -d 'Print help'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and not __fish_seen_subcommand_from agents domains agent domain denies export help" -f -a "agents" -d 'The agents'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and not __fish_seen_subcommand_from agents domains agent domain denies export help" -f -a "domains" -d 'The domains that were reached'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and not __fish_seen_subcommand_from agents domains agent domain denies export help" -f -a "agent" -d 'One agent: its domains and exfil caps'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and not __fish_seen_subcommand_from agents domains agent domain denies export help" -f -a "domain" -d 'One domain, and who reached it'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and not __fish_seen_subcommand_from agents domains agent domain denies export help" -f -a "denies" -d 'What was refused'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and not __fish_seen_subcommand_from agents domains agent domain denies export help" -f -a "export" -d 'All of it as JSON for other programs'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and not __fish_seen_subcommand_from agents domains agent domain denies export help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from agents" -l window -d 'The last: 1m, 5m, 1h, 24h [default: 1h]' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from agents" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from agents" -l json -d 'Print JSON'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from agents" -s h -l help -d 'Print help'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from domains" -l window -d 'The last: 1m, 5m, 1h, 24h [default: 1h]' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from domains" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from domains" -l json -d 'Print JSON'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from domains" -s h -l help -d 'Print help'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from agent" -l window -d 'The last: 1m, 5m, 1h, 24h [default: 1h]' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from agent" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from agent" -l json -d 'Print JSON'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from agent" -s h -l help -d 'Print help'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from domain" -l window -d 'The last: 1m, 5m, 1h, 24h [default: 1h]' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from domain" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from domain" -l json -d 'Print JSON'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from domain" -s h -l help -d 'Print help'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from denies" -l window -d 'The last: 1m, 5m, 1h, 24h [default: 1h]' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from denies" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from denies" -l json -d 'Print JSON'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from denies" -s h -l help -d 'Print help'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from export" -l window -d 'The last: 1m, 5m, 1h, 24h [default: 1h]' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from export" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from export" -l no-redact -d 'With source addresses'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from export" -l json -d 'Print JSON'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from export" -s h -l help -d 'Print help'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from help" -f -a "agents" -d 'The agents'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from help" -f -a "domains" -d 'The domains that were reached'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from help" -f -a "agent" -d 'One agent: its domains and exfil caps'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from help" -f -a "domain" -d 'One domain, and who reached it'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from help" -f -a "denies" -d 'What was refused'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from help" -f -a "export" -d 'All of it as JSON for other programs'
complete -c clawgress -n "__fish_clawgress_using_subcommand telemetry; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c clawgress -n "__fish_clawgress_using_subcommand stats" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand stats" -l json -d 'Print JSON'
complete -c clawgress -n "__fish_clawgress_using_subcommand stats" -s h -l help -d 'Print help'
complete -c clawgress -n "__fish_clawgress_using_subcommand log" -l host -d 'Only of this host' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand log" -l domain -d 'Only about this name and what is below it' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand log" -l action -d 'Only where this was done' -r -f -a "allow\t''
block\t''
monitor\t''"
complete -c clawgress -n "__fish_clawgress_using_subcommand log" -l protocol -d 'Only of this protocol: tcp, udp, icmp, icmpv6, or an IANA number' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand log" -l grep -d 'Only records with this text somewhere in their JSON, in whatever case' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand log" -l since -d 'Not older than this: 30s, 10m, 2h, 7d, or a time such as 2026-11-20T09:00:00+01:00' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand log" -l limit -d 'So many at most, the latest ones' -r
complete -c clawgress -n "__fish_clawgress_using_subcommand log" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand log" -s f -l follow -d 'Go on with what comes, until Ctrl-C'
complete -c clawgress -n "__fish_clawgress_using_subcommand log" -l json -d 'Print one JSON object a line'
complete -c clawgress -n "__fish_clawgress_using_subcommand log" -s h -l help -d 'Print help'
complete -c clawgress -n "__fish_clawgress_using_subcommand history" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand history" -l json -d 'Print JSON'
complete -c clawgress -n "__fish_clawgress_using_subcommand history" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c clawgress -n "__fish_clawgress_using_subcommand rollback" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand rollback" -l json -d 'Print JSON'
complete -c clawgress -n "__fish_clawgress_using_subcommand rollback" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c clawgress -n "__fish_clawgress_using_subcommand confirm" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand confirm" -l json -d 'Print JSON'
complete -c clawgress -n "__fish_clawgress_using_subcommand confirm" -s h -l help -d 'Print help'
complete -c clawgress -n "__fish_clawgress_using_subcommand teardown" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand teardown" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c clawgress -n "__fish_clawgress_using_subcommand generate; and not __fish_seen_subcommand_from schema openapi man completions help" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand generate; and not __fish_seen_subcommand_from schema openapi man completions help" -s h -l help -d 'Print help'
complete -c clawgress -n "__fish_clawgress_using_subcommand generate; and not __fish_seen_subcommand_from schema openapi man completions help" -f -a "schema" -d 'The JSON Schema of the policy'
complete -c clawgress -n "__fish_clawgress_using_subcommand generate; and not __fish_seen_subcommand_from schema openapi man completions help" -f -a "openapi" -d 'The OpenAPI document of the REST API'
complete -c clawgress -n "__fish_clawgress_using_subcommand generate; and not __fish_seen_subcommand_from schema openapi man completions help" -f -a "man" -d 'The manual pages'
complete -c clawgress -n "__fish_clawgress_using_subcommand generate; and not __fish_seen_subcommand_from schema openapi man completions help" -f -a "completions" -d 'Completions for a shell'
complete -c clawgress -n "__fish_clawgress_using_subcommand generate; and not __fish_seen_subcommand_from schema openapi man completions help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c clawgress -n "__fish_clawgress_using_subcommand generate; and __fish_seen_subcommand_from schema" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand generate; and __fish_seen_subcommand_from schema" -s h -l help -d 'Print help'
complete -c clawgress -n "__fish_clawgress_using_subcommand generate; and __fish_seen_subcommand_from openapi" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand generate; and __fish_seen_subcommand_from openapi" -s h -l help -d 'Print help'
complete -c clawgress -n "__fish_clawgress_using_subcommand generate; and __fish_seen_subcommand_from man" -l dir -d 'Write one file for each page into this directory, instead of all to standard output' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand generate; and __fish_seen_subcommand_from man" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand generate; and __fish_seen_subcommand_from man" -s h -l help -d 'Print help'
complete -c clawgress -n "__fish_clawgress_using_subcommand generate; and __fish_seen_subcommand_from completions" -l config -d 'Settings file [default: /run/clawgress/clawgress.toml, else /etc/clawgress/clawgress.toml]' -r -F
complete -c clawgress -n "__fish_clawgress_using_subcommand generate; and __fish_seen_subcommand_from completions" -s h -l help -d 'Print help'
complete -c clawgress -n "__fish_clawgress_using_subcommand generate; and __fish_seen_subcommand_from help" -f -a "schema" -d 'The JSON Schema of the policy'
complete -c clawgress -n "__fish_clawgress_using_subcommand generate; and __fish_seen_subcommand_from help" -f -a "openapi" -d 'The OpenAPI document of the REST API'
complete -c clawgress -n "__fish_clawgress_using_subcommand generate; and __fish_seen_subcommand_from help" -f -a "man" -d 'The manual pages'
complete -c clawgress -n "__fish_clawgress_using_subcommand generate; and __fish_seen_subcommand_from help" -f -a "completions" -d 'Completions for a shell'
complete -c clawgress -n "__fish_clawgress_using_subcommand generate; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and not __fish_seen_subcommand_from run early check plan apply import show status health firewall rpz explain telemetry stats log history rollback confirm teardown generate help" -f -a "run" -d 'Enforce the stored policy: the daemon, in the foreground'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and not __fish_seen_subcommand_from run early check plan apply import show status health firewall rpz explain telemetry stats log history rollback confirm teardown generate help" -f -a "early" -d 'Enforce the last policy before the daemon runs: at boot, before there is a network'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and not __fish_seen_subcommand_from run early check plan apply import show status health firewall rpz explain telemetry stats log history rollback confirm teardown generate help" -f -a "check" -d 'Tell whether a policy is valid: every mistake with its place'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and not __fish_seen_subcommand_from run early check plan apply import show status health firewall rpz explain telemetry stats log history rollback confirm teardown generate help" -f -a "plan" -d 'Tell what a policy would change: what it opens and shuts, which flows it cuts, what agents would notice'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and not __fish_seen_subcommand_from run early check plan apply import show status health firewall rpz explain telemetry stats log history rollback confirm teardown generate help" -f -a "apply" -d 'Enforce the stored policy again, or another one without storing it'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and not __fish_seen_subcommand_from run early check plan apply import show status health firewall rpz explain telemetry stats log history rollback confirm teardown generate help" -f -a "import" -d 'Validate, enforce and store a policy: all or nothing'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and not __fish_seen_subcommand_from run early check plan apply import show status health firewall rpz explain telemetry stats log history rollback confirm teardown generate help" -f -a "show" -d 'Print the stored policy, or a file, in normal form'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and not __fish_seen_subcommand_from run early check plan apply import show status health firewall rpz explain telemetry stats log history rollback confirm teardown generate help" -f -a "status" -d 'Print the state: what is in force, since when, and whether all is well'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and not __fish_seen_subcommand_from run early check plan apply import show status health firewall rpz explain telemetry stats log history rollback confirm teardown generate help" -f -a "health" -d 'Run the checks; exit status 1 when one fails'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and not __fish_seen_subcommand_from run early check plan apply import show status health firewall rpz explain telemetry stats log history rollback confirm teardown generate help" -f -a "firewall" -d 'Print the table as the kernel holds it'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and not __fish_seen_subcommand_from run early check plan apply import show status health firewall rpz explain telemetry stats log history rollback confirm teardown generate help" -f -a "rpz" -d 'Print the DNS policy as a response-policy zone'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and not __fish_seen_subcommand_from run early check plan apply import show status health firewall rpz explain telemetry stats log history rollback confirm teardown generate help" -f -a "explain" -d 'Tell what would happen to a query or a connection, and which line of the policy says so'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and not __fish_seen_subcommand_from run early check plan apply import show status health firewall rpz explain telemetry stats log history rollback confirm teardown generate help" -f -a "telemetry" -d 'Print who used how much, and what was refused'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and not __fish_seen_subcommand_from run early check plan apply import show status health firewall rpz explain telemetry stats log history rollback confirm teardown generate help" -f -a "stats" -d 'Print totals and the top lists of the last 24 hours'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and not __fish_seen_subcommand_from run early check plan apply import show status health firewall rpz explain telemetry stats log history rollback confirm teardown generate help" -f -a "log" -d 'Print decision records: who was refused what, when, why, and by which line of the policy'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and not __fish_seen_subcommand_from run early check plan apply import show status health firewall rpz explain telemetry stats log history rollback confirm teardown generate help" -f -a "history" -d 'Print the revisions, newest first'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and not __fish_seen_subcommand_from run early check plan apply import show status health firewall rpz explain telemetry stats log history rollback confirm teardown generate help" -f -a "rollback" -d 'Enforce and store an earlier revision again'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and not __fish_seen_subcommand_from run early check plan apply import show status health firewall rpz explain telemetry stats log history rollback confirm teardown generate help" -f -a "confirm" -d 'Let the policy stay that was applied with --confirm'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and not __fish_seen_subcommand_from run early check plan apply import show status health firewall rpz explain telemetry stats log history rollback confirm teardown generate help" -f -a "teardown" -d 'Stop enforcing: remove the table from the kernel, so that everything passes'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and not __fish_seen_subcommand_from run early check plan apply import show status health firewall rpz explain telemetry stats log history rollback confirm teardown generate help" -f -a "generate" -d 'Print the policy\'s JSON Schema, the REST API\'s OpenAPI document, manual pages or shell completions'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and not __fish_seen_subcommand_from run early check plan apply import show status health firewall rpz explain telemetry stats log history rollback confirm teardown generate help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and __fish_seen_subcommand_from telemetry" -f -a "agents" -d 'The agents'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and __fish_seen_subcommand_from telemetry" -f -a "domains" -d 'The domains that were reached'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and __fish_seen_subcommand_from telemetry" -f -a "agent" -d 'One agent: its domains and exfil caps'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and __fish_seen_subcommand_from telemetry" -f -a "domain" -d 'One domain, and who reached it'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and __fish_seen_subcommand_from telemetry" -f -a "denies" -d 'What was refused'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and __fish_seen_subcommand_from telemetry" -f -a "export" -d 'All of it as JSON for other programs'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and __fish_seen_subcommand_from generate" -f -a "schema" -d 'The JSON Schema of the policy'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and __fish_seen_subcommand_from generate" -f -a "openapi" -d 'The OpenAPI document of the REST API'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and __fish_seen_subcommand_from generate" -f -a "man" -d 'The manual pages'
complete -c clawgress -n "__fish_clawgress_using_subcommand help; and __fish_seen_subcommand_from generate" -f -a "completions" -d 'Completions for a shell'
