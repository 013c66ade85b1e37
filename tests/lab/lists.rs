//! Names in files (SPEC section 2, `domain_lists`): what they deny and allow, and what becomes of a file that changes, is
//! gone, or comes back.

use std::time::Duration;

use hickory_proto::rr::RecordType;
use serde_json::{Value, json};

use crate::world::World;
use crate::{A, OTHER, SITE};

/// A changed file is in force within this: two looks, two seconds apart, and the work.
const SOON: Duration = Duration::from_secs(15);

fn write(world: &World, name: &str, text: &str) {
    std::fs::write(world.gateway.path(name), text).expect("the temporary directory is writable");
}

fn list(world: &World, name: &str, format: &str) -> Value {
    json!([{ "name": name.replace('/', "-"), "file": world.gateway.path(name), "format": format }])
}

/// Everything below example.com, but what the file names.
fn denying(world: &World, format: &str) -> Value {
    json!({ "version": 1, "allow": { "domains": ["*.example.com"] },
        "deny": { "domain_lists": list(world, "bad.txt", format) } })
}

fn resolves(world: &World, name: &str) -> bool {
    world.a.lookup(name, RecordType::A).is_ok_and(|reply| reply.code() == "NOERROR")
}

#[track_caller]
fn wait(world: &World, what: &str, mut is: impl FnMut() -> bool) {
    world.gateway.wait_until(what, SOON, |_| is());
}

/// The check `lists` of `status`.
fn check(world: &World) -> (bool, String) {
    let checks = world.gateway.status()["checks"].clone();
    let found = checks.as_array().expect("a list").iter().find(|check| check["name"] == "lists").cloned();
    let found = found.expect("status tells of the lists");
    (found["ok"] == true, found["message"].as_str().expect("a text").to_owned())
}

fn newest(world: &World) -> Value {
    world.gateway.tool(&["history", "--json"]).json()["revisions"][0].clone()
}

fn serve(world: &World) {
    for name in ["good.example.com", "bad.example.com", "worse.example.com"] {
        world.internet.upstream.host(name, &[SITE]);
    }
}

#[test]
fn a_list_denies_by_name_and_its_line_is_told() {
    let mut world = world!();
    serve(&world);
    write(&world, "bad.txt", "# threats\r\n0.0.0.0 worse.example.com bad.example.com\r\n0.0.0.0 no_name! \r\n");
    world.gateway.enforce(denying(&world, "hosts"));
    world.a.reach("bad.example.com", 443).must_be_blocked_by_name();
    world.a.reach("good.example.com", 443).must_reach();
    assert_eq!(world.internet.upstream.times_asked("bad.example.com"), 0);
    let ran = world.gateway.tool(&["explain", "--source", "192.168.10.10", "--domain", "bad.example.com", "--json"]);
    let told = ran.json();
    assert_eq!((&told["verdict"], &told["reason"]), (&json!("block"), &json!("denied")), "{told}");
    assert_eq!(told["path"], "/deny/domain_lists/0");
    let file = world.gateway.path("bad.txt");
    let place = format!("line 2 of {}", file.display());
    assert!(told["detail"].as_str().is_some_and(|detail| detail.ends_with(&place)), "{told}");
    let (ok, message) = check(&world);
    assert!(ok && message.contains("2 names, 1 rejected"), "{message}");
    let zone = world.gateway.tool(&["rpz"]);
    assert!(
        zone.must_succeed().contains("\nbad.example.com CNAME . ; /deny/domain_lists/0 line 2\n"),
        "{}",
        zone.stdout
    );
}

#[test]
fn zones_of_any_size_are_printed() {
    const NAMES: usize = 500_000;
    let mut world = world!();
    let names: String = (0..NAMES).map(|number| format!("n{number}.example.com\n")).collect();
    write(&world, "bad.txt", &names);
    world.gateway.enforce(denying(&world, "domains"));
    let ran = world.gateway.tool(&["rpz"]);
    let text = ran.must_succeed();
    let printed = text.lines().filter(|line| line.contains(" CNAME . ; /deny/domain_lists/0 line ")).count();
    assert_eq!(printed, NAMES);
    assert!(text.ends_with("\n* CNAME .\n"), "the last zone is there");
    let text = world.gateway.tool(&["rpz", "--json"]).json()["text"].as_str().map(str::len);
    assert_eq!(text, Some(ran.stdout.len()));
}

#[test]
fn a_list_allows_for_its_host_alone() {
    let mut world = world!();
    serve(&world);
    write(
        &world,
        "good.rpz",
        "$TTL 60\n@ SOA a. b. 1 2 3 4 5\n*.example.com CNAME rpz-passthru.\nbad.example.com CNAME .\n",
    );
    world.gateway.enforce(json!({ "version": 1, "hosts": { "a": { "sources": A,
        "allow": { "domain_lists": list(&world, "good.rpz", "rpz") } } } }));
    world.a.reach("good.example.com", 443).must_reach();
    world.a.reach("bad.example.com", 443).must_be_blocked_by_name();
    world.b.reach("good.example.com", 443).must_be_blocked_by_name();
    // An allowlist without a name is none, not everything.
    write(&world, "good.rpz", "; nothing\n");
    wait(&world, "the empty list is in force", || !resolves(&world, "good.example.com"));
    world.a.reach("good.example.com", 443).must_be_blocked_by_name();
}

#[test]
fn addresses_of_a_zone_are_kept_out_of_answers_and_leases_end() {
    let mut world = world!();
    world.internet.upstream.host("good.example.com", &[SITE]);
    world.internet.upstream.host("other.example.com", &[OTHER]);
    write(&world, "bad.txt", "x.example.com CNAME .\n");
    world.gateway.enforce(denying(&world, "rpz"));
    world.a.reach("good.example.com", 443).must_reach();
    write(&world, "bad.txt", "32.34.216.184.93.rpz-ip CNAME .\n");
    wait(&world, "the address is shut", || !world.a.tcp(SITE, 443).reached());
    assert!(!resolves(&world, "good.example.com"), "no answer holds the address");
    world.a.reach("other.example.com", 443).must_reach();
}

#[test]
fn a_changed_file_is_a_new_revision_and_a_missing_one_keeps_the_old() {
    let mut world = world!();
    serve(&world);
    write(&world, "bad.txt", "bad.example.com\n");
    world.gateway.enforce(denying(&world, "domains"));
    let first = newest(&world);
    assert_eq!(first["lists"][0]["format"], "domains", "{first}");

    write(&world, "bad.txt", "bad.example.com\nworse.example.com\n");
    wait(&world, "the new line is in force", || !resolves(&world, "worse.example.com"));
    let second = newest(&world);
    assert_eq!((&second["revision"], &second["origin"]), (&json!(2), &json!("list")), "{second}");
    assert_ne!(second["sha256"], first["sha256"], "contents are part of the revision");
    assert_eq!(world.gateway.status()["drift"], false, "the stored policy is the one in force");

    std::fs::remove_file(world.gateway.path("bad.txt")).expect("it was there");
    wait(&world, "the missing file is told", || !check(&world).0);
    assert!(check(&world).1.contains("there is no such file"), "{}", check(&world).1);
    world.a.reach("worse.example.com", 443).must_be_blocked_by_name();
    // Who asks for the files to be read is refused, with the line that names the file; the old contents stay.
    let ran = world.gateway.tool(&["apply"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("/deny/domain_lists/0/file"), "{}", ran.stderr);
    world.a.reach("worse.example.com", 443).must_be_blocked_by_name();

    // The machine starts again without the file.
    world.gateway.kill9();
    world.gateway.netns.command("nft").args(["delete", "table", "inet", "clawgress"]).status().expect("nft runs");
    world.gateway.start();
    world.a.reach("worse.example.com", 443).must_be_blocked_by_name();
    world.a.reach("good.example.com", 443).must_reach();
    assert_eq!(newest(&world)["revision"], 2);
    assert!(!check(&world).0, "it says so still");

    write(&world, "bad.txt", "worse.example.com\n");
    wait(&world, "the file is back", || resolves(&world, "bad.example.com"));
    assert!(check(&world).0);
}

#[test]
fn a_file_that_turns_into_something_else_lifts_nothing_and_is_told_until_it_is_a_list_again() {
    let mut world = world!();
    serve(&world);
    write(&world, "bad.txt", "bad.example.com\n");
    write(&world, "more.txt", "x.example.com\n");
    let mut lists = list(&world, "bad.txt", "domains");
    lists
        .as_array_mut()
        .expect("a list")
        .push(json!({ "name": "more", "file": world.gateway.path("more.txt"), "format": "domains" }));
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["*.example.com"] },
        "deny": { "domain_lists": lists } }));
    // What a server sends instead of the list.
    write(&world, "bad.txt", "<html><body>503 Service Unavailable</body></html>\n");
    wait(&world, "the page is told", || !check(&world).0);
    let told = |world: &World| check(world).1.contains("could be read as domains; what it said in revision");
    assert!(told(&world), "{}", check(&world).1);
    world.a.reach("bad.example.com", 443).must_be_blocked_by_name();
    assert_eq!(newest(&world)["revision"], 1);
    // Changes of the other list come into force, and the trouble goes on being told; so it does after a start.
    for (turn, name) in [(2, "worse.example.com"), (3, "worst.example.com")] {
        write(&world, "more.txt", &format!("{name}\n"));
        wait(&world, "the other list is in force", || newest(&world)["revision"] == turn);
        assert!(told(&world), "{}", check(&world).1);
        world.a.reach("bad.example.com", 443).must_be_blocked_by_name();
    }
    world.gateway.kill9();
    world.gateway.start();
    wait(&world, "the page is told", || told(&world));
    world.a.reach("bad.example.com", 443).must_be_blocked_by_name();
    write(&world, "bad.txt", "worse.example.com\n");
    wait(&world, "it is a list again", || resolves(&world, "bad.example.com"));
    assert!(check(&world).0);
}

#[test]
fn a_rollback_brings_back_what_the_file_said() {
    let mut world = world!();
    serve(&world);
    write(&world, "bad.txt", "bad.example.com\n");
    world.gateway.enforce(denying(&world, "domains"));
    write(&world, "bad.txt", "worse.example.com\n");
    world.gateway.tool(&["apply"]).must_succeed();
    assert!(resolves(&world, "bad.example.com") && !resolves(&world, "worse.example.com"));
    world.gateway.tool(&["rollback"]).must_succeed();
    assert!(!resolves(&world, "bad.example.com") && resolves(&world, "worse.example.com"));
    // It stays so, also over a restart, until the file changes or somebody has it read.
    world.gateway.kill9();
    world.gateway.start();
    assert!(!resolves(&world, "bad.example.com") && resolves(&world, "worse.example.com"));
    world.gateway.tool(&["apply"]).must_succeed();
    assert!(resolves(&world, "bad.example.com") && !resolves(&world, "worse.example.com"));
}

#[test]
fn what_nobody_confirms_takes_its_lists_with_it() {
    let mut world = world!();
    serve(&world);
    write(&world, "bad.txt", "bad.example.com\n");
    world.gateway.enforce(denying(&world, "domains"));
    write(&world, "bad.txt", "worse.example.com\n");
    world.gateway.tool(&["apply", "--confirm", "1"]).must_succeed();
    assert!(!resolves(&world, "worse.example.com"));
    wait(&world, "the first contents are back", || !resolves(&world, "bad.example.com"));
    assert!(resolves(&world, "worse.example.com"));
    assert_eq!(newest(&world)["origin"], "rollback");
}

#[test]
fn copies_go_with_their_revisions() {
    let mut world = world!();
    write(&world, "bad.txt", "bad.example.com\n");
    world.gateway.enforce(denying(&world, "domains"));
    let copies = |world: &World| std::fs::read_dir(world.gateway.path("state/lists")).expect("it is there").count();
    for turn in 0..60 {
        write(&world, "bad.txt", &format!("bad{turn}.example.com\n"));
        world.gateway.tool(&["apply"]).must_succeed();
    }
    assert_eq!(copies(&world), 50, "as many as there are revisions");
    world.gateway.import(json!({ "version": 1 }));
    assert_eq!(copies(&world), 49);
}

#[test]
fn a_page_in_the_place_of_a_list_is_refused_by_those_who_have_it_read_until_the_list_is_taken_out() {
    let mut world = world!();
    serve(&world);
    write(&world, "bad.txt", "bad.example.com\nworse.example.com\n");
    world.gateway.enforce(denying(&world, "domains"));
    write(&world, "bad.txt", "<html><body>503 Service Unavailable</body></html>\n");
    let policy = world.gateway.path("policy.json");
    let policy = policy.to_str().expect("UTF-8");
    let file = world.gateway.path("bad.txt");
    for ask in
        [&["apply"][..], &["apply", "--policy", policy], &["import", "--policy", policy], &["plan", "--policy", policy]]
    {
        let ran = world.gateway.tool(ask);
        assert_eq!(ran.code, Some(1), "{ask:?}: {}", ran.stderr);
        let told = format!(
            "/deny/domain_lists/0/file: list bad.txt: nothing in {} could be read as domains (0 names, 1 rejected; line 1: \
             more than one name on the line), and what it said in revision 1 is in force: 2 rules",
            file.display()
        );
        assert!(ran.stderr.contains(&told), "{ask:?}: {}", ran.stderr);
        world.a.reach("bad.example.com", 443).must_be_blocked_by_name();
    }
    world.gateway.hangup();
    wait(&world, "SIGHUP is answered", || world.gateway.log().contains("/file: list bad.txt: nothing in"));
    wait(&world, "the page is told", || check(&world).1.contains("could be read as domains"));
    assert!(!check(&world).0);
    world.a.reach("bad.example.com", 443).must_be_blocked_by_name();
    assert_eq!(newest(&world)["revision"], 1);
    // All is well once the file is a list again.
    write(&world, "bad.txt", "bad.example.com\nworse.example.com\n");
    wait(&world, "the list is back", || check(&world).0);
    world.gateway.tool(&["health"]).must_succeed();
    write(&world, "bad.txt", "<html><body>503 Service Unavailable</body></html>\n");
    // Who wants it out takes it out; what is new in a policy may be whatever it is, and status says so.
    world.gateway.import(json!({ "version": 1, "allow": { "domains": ["*.example.com"] } }));
    world.a.reach("bad.example.com", 443).must_reach();
    world.gateway.import(denying(&world, "domains"));
    assert!(!check(&world).0, "{}", check(&world).1);
    world.a.reach("bad.example.com", 443).must_reach();
    // One page after another lifts nothing.
    write(&world, "bad.txt", "<html>\n<body>504 Gateway Timeout</body>\n</html>\n");
    world.gateway.tool(&["apply"]).must_succeed();
    assert!(!check(&world).0, "{}", check(&world).1);
}

#[test]
fn a_list_that_was_emptied_lifts_what_it_said_and_everybody_is_told() {
    let mut world = world!();
    serve(&world);
    write(&world, "bad.txt", "bad.example.com\nworse.example.com\n");
    world.gateway.enforce(denying(&world, "domains"));
    let told = format!("{} holds no name; it held 2 rules before", world.gateway.path("bad.txt").display());
    write(&world, "bad.txt", "# nothing left\n");
    wait(&world, "the empty list is in force", || resolves(&world, "bad.example.com"));
    let (ok, message) = check(&world);
    assert!(ok && message.contains(&told), "{message}");
    world.gateway.tool(&["health"]).must_succeed();
    let log = world.gateway.log();
    assert!(log.contains(&told), "{log}");
    // It is so still for who has it read again, and after a start.
    let ran = world.gateway.tool(&["apply"]);
    ran.must_succeed();
    assert!(ran.stderr.contains(&told), "{}", ran.stderr);
    world.gateway.kill9();
    world.gateway.start();
    assert!(check(&world).1.contains(&told), "{}", check(&world).1);
    write(&world, "bad.txt", "bad.example.com\n");
    wait(&world, "it says something", || !resolves(&world, "bad.example.com"));
    assert!(!check(&world).1.contains("it held"), "{}", check(&world).1);
    // Emptied before an import: the import tells it.
    write(&world, "bad.txt", "");
    let policy = world.gateway.path("policy.json");
    let ran = world.gateway.tool(&["import", "--policy", policy.to_str().expect("UTF-8")]);
    ran.must_succeed();
    assert!(ran.stderr.contains("holds no name; it held 1 rule before"), "{}", ran.stderr);
}

#[test]
fn what_is_in_the_place_of_a_file_is_told_as_what_it_is() {
    let mut world = world!();
    write(&world, "bad.txt", "bad.example.com\n");
    world.gateway.enforce(denying(&world, "domains"));
    let file = world.gateway.path("bad.txt");
    std::fs::rename(&file, world.gateway.path("aside.txt")).expect("it was there");
    wait(&world, "the missing file is told", || check(&world).1.contains("there is no such file"));
    std::fs::create_dir(&file).expect("the place is free");
    wait(&world, "the directory is told", || check(&world).1.contains("it is a directory"));
    std::fs::remove_dir(&file).expect("it is empty");
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRUSR).expect("the place is free");
    wait(&world, "the FIFO is told", || check(&world).1.contains("is not a regular file"));
    std::fs::rename(world.gateway.path("aside.txt"), &file).expect("it takes the place");
    wait(&world, "the file is back", || check(&world).0);
    // A file that is there again and was never touched, as after a mount.
    let (dir, away) = (world.gateway.path("lists"), world.gateway.path("away"));
    std::fs::create_dir(&dir).expect("the temporary directory is writable");
    write(&world, "lists/bad.txt", "bad.example.com\n");
    world.gateway.import(json!({ "version": 1, "deny": { "domain_lists": list(&world, "lists/bad.txt", "domains") } }));
    std::fs::rename(&dir, &away).expect("it was there");
    wait(&world, "the missing file is told", || check(&world).1.contains("there is no such file"));
    std::fs::rename(&away, &dir).expect("it was there");
    wait(&world, "the file is back", || check(&world).0);
}
