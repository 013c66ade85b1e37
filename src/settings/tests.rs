use std::path::Path;

use super::*;

/// The mistakes of a text, one line each.
fn mistakes(text: &str) -> Vec<String> {
    parse(text).expect_err("the text has mistakes").iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_written_is_the_defaults() {
    assert_eq!(parse(""), Ok(Settings::default()));
    assert_eq!(parse("\u{feff}# only a remark\n[dns]\n"), Ok(Settings::default()));
}

#[test]
fn the_shipped_file_shows_the_defaults() {
    let shipped = include_str!("../../packaging/clawgress.toml");
    assert_eq!(parse(shipped), Ok(Settings::default()));
    let mut shown = 0;
    let bare: Vec<&str> = shipped
        .lines()
        .map(|line| {
            let key =
                line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['));
            shown += usize::from(key.is_some());
            key.unwrap_or(line)
        })
        .collect();
    assert_eq!(shown, 18, "the file shows every section and key of this version");
    assert_eq!(parse(&bare.join("\n")), Ok(Settings::default()));
}

#[test]
fn everything_of_the_contract_is_read() {
    let settings = parse(
        r#"
policy      = "/p/policy.json"
state_dir   = "/s"
runtime_dir = "/r"
[dns]
listen    = ["192.168.10.1:53", "[fd00::1]:5353"]
upstreams = ["tls://9.9.9.9#dns.quad9.net", " 1.1.1.1 "]
redirect  = false
out_of_scope = "forward"
queries_per_second = 0
receivers = 3
[api]
listen = "127.0.0.1:1"
tls    = { certificate = "/c", key = "/k" }
keys   = [ { id = "a", key = "s3cret", role = "write" }, { id = "b", key_file = "/b.key", role = "read" } ]
metrics = true
[log]
decisions = "all"
keep_megabytes = 8
keep_days = 0x2
[kernel]
lock_table = false
"#,
    )
    .unwrap();
    assert_eq!(settings.policy, Path::new("/p/policy.json"));
    assert_eq!((settings.state_dir.as_path(), settings.runtime_dir.as_path()), (Path::new("/s"), Path::new("/r")));
    assert_eq!(settings.socket(), Path::new("/r/clawgress.sock"));
    assert_eq!(settings.dns.listen, ["192.168.10.1:53".parse().unwrap(), "[fd00::1]:5353".parse().unwrap()]);
    assert_eq!(settings.dns.upstreams.as_deref(), Some(&["tls://9.9.9.9#dns.quad9.net".into(), "1.1.1.1".into()][..]));
    assert!(!settings.dns.redirect && !settings.kernel.lock_table);
    assert_eq!((settings.dns.queries_per_second, settings.dns.receivers.map(usize::from)), (None, Some(3)));
    assert_eq!((settings.dns.out_of_scope, settings.log.decisions), (OutOfScope::Forward, Decisions::All));
    assert_eq!((settings.log.keep_bytes, settings.log.keep_age), (8 << 20, 2 * super::DAY));
    let shown = format!("{settings:?}");
    assert!(!shown.contains("s3cret"), "{shown}");
    let api = &settings.api;
    assert!(api.metrics && api.tls.is_some());
    assert_eq!(api.keys[0].secret, Secret::Here("s3cret".into()));
    assert_eq!((api.keys[1].role, &api.keys[1].secret), (Role::Read, &Secret::InFile("/b.key".into())));
    assert!(settings.not_yet.is_empty(), "{:?}", settings.not_yet);
}

#[test]
fn an_api_that_nobody_can_call_is_told() {
    let told = |text: &str| parse(text).unwrap().not_yet;
    assert_eq!(told("[api]\nlisten = \"127.0.0.1:1\""), ["[api]: there is no key and no metrics, so nothing listens"]);
    assert!(told("[api]\nmetrics = true").is_empty());
    assert!(told("[api]\nkeys = [{ id = \"a\", key = \"b\", role = \"read\" }]").is_empty());
}

#[test]
fn every_mistake_is_told_with_its_line() {
    let text = "polcy = \"/p\"\nstate_dir = \"var\"\nredirect = true\n[dns]\nlisten = [\"1.2.3.4\", \"::\", \"x\", \
                \"1.2.3.4:0\"]\nupstreams = []\nredirect = \"yes\"\nout_of_scope = \"refused\"\n[kernel]\nlock = true\n\"a b\" = 1\n";
    assert_eq!(
        mistakes(text),
        [
            "line 1: polcy: unknown key; did you mean \"policy\"?",
            "line 2: state_dir: \"var\" is not an absolute path; start it with /, as in \"/var/lib/clawgress\"",
            "line 3: redirect: unknown key; redirect belongs in [dns]",
            "line 5: dns.listen[0]: \"1.2.3.4\" is not ADDRESS:PORT; the port is missing, as in \"192.168.10.1:53\"",
            "line 5: dns.listen[1]: \"::\" is not ADDRESS:PORT; write the IPv6 address in brackets and the port after \
             it, as in \"[::]:53\"",
            "line 5: dns.listen[2]: \"x\" is not ADDRESS:PORT; write an IP address and a port, as in \
             \"192.168.10.1:53\"",
            "line 5: dns.listen[3]: port 0 is no port to listen on; for example \"192.168.10.1:53\"",
            "line 6: dns.upstreams: is empty: no name could be resolved; name one, or remove the line to use the \
             servers of /etc/resolv.conf",
            "line 7: dns.redirect: should be true or false, without quotes, not a text; for example redirect = true",
            "line 8: dns.out_of_scope: \"refused\" is not known here; did you mean \"refuse\"?",
            "line 10: kernel.lock: unknown key; known here: lock_table",
            "line 11: kernel.\"a b\": unknown key; known here: lock_table",
        ]
    );
}

#[test]
fn values_that_cannot_work_are_refused() {
    assert_eq!(
        mistakes("policy = \"/config/\""),
        ["line 1: policy: \"/config/\" is a directory; name the file, as in \"/config/clawgress/policy.json\""]
    );
    assert_eq!(
        mistakes("policy = 3"),
        ["line 1: policy: should be a text in quotes, not a whole number; for example policy = \
         \"/config/clawgress/policy.json\""]
    );
    assert_eq!(
        mistakes("[log]\nkeep_days = 0\nkeep_megabytes = \"64\""),
        [
            "line 2: log.keep_days: 0 is out of bounds; from 1 to 3650",
            "line 3: log.keep_megabytes: should be a whole number, without quotes, not a text; for example keep_megabytes = 1"
        ]
    );
    assert!(mistakes("policy = \"/a\\u0000b\"")[0].contains("characters that do not show"));
    assert!(mistakes(&format!("runtime_dir = \"/{}\"", "r".repeat(100)))[0].contains("choose a shorter path"));
    assert!(mistakes("[dns]\nlisten = []")[0].starts_with("line 2: dns.listen: is empty"));
    assert!(mistakes("[dns]\nlisten = [\"[::]:53\", \"[::]:53\"]")[0].contains("is there already"));
    assert!(mistakes("dns = 1")[0].contains("write [dns] on a line of its own"));
}

#[test]
fn followers_of_the_zones_are_read() {
    let settings = parse(
        "[rpz]\nlisten = [\"192.0.2.1:5300\", \"[2001:db8::1]:5300\"]\n\
         [[rpz.secondary]]\naddress = \"192.0.2.53\"\nkey = \"k\"\nalgorithm = \"hmac-sha512\"\nsecret_file = \"/k\"\n\
         [[rpz.secondary]]\naddress = \"[2001:db8::2]:5353\"\nunsigned = true\nhosts = [\"a\", \"*\"]\n",
    )
    .unwrap();
    let rpz = &settings.rpz;
    assert_eq!(rpz.listen.len(), 2);
    let key = TransferKey { name: "k".into(), algorithm: Hash::Sha512, secret_file: "/k".into() };
    let first = Secondary { address: "192.0.2.53:53".parse().unwrap(), key: Some(key), hosts: None };
    let hosts = Some(vec!["a".to_owned(), "*".to_owned()]);
    let second = Secondary { address: "[2001:db8::2]:5353".parse().unwrap(), key: None, hosts };
    assert_eq!(rpz.secondaries, [first, second]);
    let told = parse("[rpz]\nlisten = [\"192.0.2.1:5300\"]").unwrap().not_yet;
    assert_eq!(told, ["[rpz]: there is no secondary, so nothing listens"]);
}

#[test]
fn followers_that_cannot_work_are_refused() {
    let own = "[rpz]\nlisten = [\"192.0.2.1:5300\"]\n[[rpz.secondary]]\n";
    let one = |text: &str| mistakes(&format!("{own}{text}")).join("\n");
    for (text, part) in [
        ("address = \"192.0.2.5\"", "line 3: rpz.secondary[0]: key is missing; write key"),
        ("address = \"192.0.2.5\"\nkey = \"k\"", "secret_file is missing"),
        ("address = \"192.0.2.5\"\nkey = \"k\"\nunsigned = true", "line 5: rpz.secondary[0].key: unsigned = true says"),
        ("unsigned = true", "address is missing"),
        ("address = \"ns.example\"\nunsigned = true", "\"ns.example\" is no address; write an IP address"),
        ("address = \"0.0.0.0\"\nunsigned = true", "no address of one server"),
        ("address = \"2001:db8::1\"\nunsigned = true", "rpz.listen has no IPv6 address"),
        ("address = \"::ffff:0.0.0.0\"\nunsigned = true", "no address of one server"),
        ("address = \"::ffff:224.0.0.1\"\nunsigned = true", "no address of one server"),
        (
            "address = \"192.0.2.5\"\nunsigned = true\n[[rpz.secondary]]\naddress = \"::ffff:192.0.2.5\"\nunsigned = true",
            "192.0.2.5:53 is there already",
        ),
        ("address = \"192.0.2.5\"\nunsigned = true\nhosts = []", "it would follow nothing"),
        (
            "address = \"192.0.2.5\"\nkey = \"k\"\nsecret_file = \"/k\"\nalgorithm = \"hmac-md5\"",
            "\"hmac-md5\" is not known",
        ),
        (
            "address = \"192.0.2.5\"\nunsigned = true\n[[rpz.secondary]]\naddress = \"192.0.2.5:9\"\nunsigned = true",
            "is there already",
        ),
    ] {
        let told = one(text);
        assert!(told.contains(part), "{text}\n{told}");
    }
    let many: String =
        (1..=17).map(|n| format!("[[rpz.secondary]]\naddress = \"192.0.2.{n}\"\nunsigned = true\n")).collect();
    assert!(mistakes(&format!("[rpz]\nlisten = [\"192.0.2.1:5300\"]\n{many}"))[0].contains("16 are the most"));
    let listen =
        |text: &str| mistakes(&format!("[dns]\nlisten = [\"0.0.0.0:53\"]\n[rpz]\nlisten = [{text}]")).join("\n");
    assert!(listen("\"0.0.0.0:5300\"").contains("is every address; name each address"));
    assert!(listen("\"192.0.2.1:53\"").contains("in dns.listen already"));
    assert!(listen("\"[::ffff:192.0.2.1]:53\"").contains("in dns.listen already"));
    assert!(listen("\"192.0.2.1:5300\", \"192.0.2.1:5300\"").contains("is there already"));
    // Agents reach such a port at every address of the gateway, whatever listens there, redirected or not.
    for dns in ["listen = [\"192.0.2.2:53\"]\nredirect = false", "listen = [\"192.0.2.2:53\"]"] {
        let told = mistakes(&format!("[dns]\n{dns}\n[rpz]\nlisten = [\"192.0.2.1:53\"]")).join("\n");
        assert!(told.contains("dns.listen has port 53 too, which is open to agents"), "{told}");
    }
    let apart = "[dns]\nlisten = [\"192.0.2.2:5353\"]\nredirect = false\n[rpz]\nlisten = [\"192.0.2.1:53\"]";
    assert_eq!(parse(apart).unwrap().rpz.listen.len(), 1, "the packet filter closes it");
}

#[test]
fn a_follower_is_known_by_the_address_from_which_it_asks() {
    let text = "[rpz]\nlisten = [\"192.0.2.1:5300\"]\n[[rpz.secondary]]\naddress = \"ADDRESS\"\nunsigned = true";
    for (written, meant) in [("::ffff:192.0.2.5", "192.0.2.5:53"), ("[::ffff:c000:205]:9", "192.0.2.5:9")] {
        let settings = parse(&text.replace("ADDRESS", written)).unwrap_or_else(|wrong| panic!("{written}: {wrong:?}"));
        assert_eq!(settings.rpz.secondaries[0].address, meant.parse().unwrap(), "{written}");
    }
}

#[test]
fn a_text_that_is_no_toml_is_told_as_such() {
    assert_eq!(mistakes("[dns]\n[dns]\n").len(), 1);
    let twice = &mistakes("policy = \"/a\"\npolicy = \"/b\"\n")[0];
    assert_eq!(twice, "line 2: duplicate key; keep one of the two");
    let open = &mistakes("\npolicy = \"/a\nx = 1\n")[0];
    assert!(open.starts_with("line 2: "), "{open}");
    assert!(!open.contains('\n'), "{open}");
}

#[test]
fn keys_of_the_api_are_checked() {
    let wrong = mistakes(
        "[api]\nkeys = [ { id = \"a\", role = \"admin\" }, { key = \"x\", key_file = \"/x\", role = \"read\" }, 7 ]\n\
         tls = { certificate = \"/c\" }\n",
    );
    let all = wrong.join("\n");
    for part in [
        "api.keys[0].role: \"admin\" is not known here; write \"read\" or \"write\"",
        "api.keys[0]: key is missing",
        "api.keys[1]: id is missing",
        "api.keys[1].key_file: key is there as well",
        "api.keys[2]: should be { … }",
        "line 3: api.tls: key is missing",
    ] {
        assert!(all.contains(part), "{part}:\n{all}");
    }
}

proptest::proptest! {
    /// Pieces of settings in any order, with anything between them.
    #[test]
    fn no_text_makes_the_reader_stumble(
        pieces in proptest::collection::vec((
            proptest::sample::select(vec![
                "policy", "state_dir", "runtime_dir", "[dns]", "[api]", "[[api]]", "listen", "upstreams", "keys", "tls",
                "decisions", "[kernel]", "lock_table", "=", "\"", "[", "]", "{", "}", ",", ".", "\n", "#", "true", "1",
                "\"/p\"", "\"0.0.0.0:53\"", "'", "\"\"\"", "\\", "\u{feff}", "1979-05-27", "é",
            ]),
            ".{0,2}",
        ), 0..24)
    ) {
        let text: String = pieces.iter().flat_map(|(word, noise)| [*word, noise.as_str()]).collect();
        if let Err(mistakes) = parse(&text) {
            assert!(!mistakes.is_empty());
            let lines = text.split('\n').count();
            for mistake in mistakes {
                assert!(mistake.line.is_none_or(|line| (1..=lines).contains(&line)), "{mistake}");
                assert_eq!(mistake.to_string().lines().count(), 1, "{mistake}");
            }
        }
    }
}
