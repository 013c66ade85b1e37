//! What each key means.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use toml::de::DeTable;

use super::reader::{Entry, Notes, SECTIONS, Section};
use super::rpz::rpz;
use super::{
    Api, ApiKey, DAY, Decisions, Dns, MAX_SOCKET_PATH, MEGABYTE, Mistake, OutOfScope, Role, Secret, Settings, Tls,
    socket_in,
};
use crate::policy::wording::quoted;

/// Reads the text of a settings file.
///
/// # Errors
/// Every mistake in it.
pub fn parse(text: &str) -> Result<Settings, Vec<Mistake>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut notes = Notes::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let hint = error.message().contains("duplicate").then(|| "keep one of the two".to_owned());
        notes.mistake(error.span().as_ref(), "", one_line(error.message()), hint);
    }
    // What a text means that is not TOML is a guess; the first repair comes first.
    if !notes.mistakes.is_empty() {
        return Err(notes.mistakes);
    }
    let top = Section::read(table.get_ref(), String::new(), None, known(""), &mut notes);
    let mut settings = Settings::default();
    if let Some(path) = top.get("policy").and_then(|entry| policy_path(&entry, &mut notes)) {
        settings.policy = path;
    }
    if let Some(path) = top.get("state_dir").and_then(|entry| entry.path(&mut notes, "/var/lib/clawgress")) {
        settings.state_dir = path;
    }
    if let Some(path) = top.get("runtime_dir").and_then(|entry| runtime_dir(&entry, &mut notes)) {
        settings.runtime_dir = path;
    }
    if let Some(section) = top.get("dns").and_then(|entry| entry.section(known("dns"), &mut notes)) {
        dns(&section, &mut settings.dns, &mut notes);
    }
    if let Some(section) = top.get("rpz").and_then(|entry| entry.section(known("rpz"), &mut notes)) {
        settings.rpz = rpz(&section, &settings.dns.listen, &mut notes);
        if settings.rpz.secondaries.is_empty() && !settings.rpz.listen.is_empty() {
            settings.not_yet.push("[rpz]: there is no secondary, so nothing listens".to_owned());
        }
    }
    if let Some(section) = top.get("api").and_then(|entry| entry.section(known("api"), &mut notes)) {
        settings.api = api(&section, &mut notes);
        if settings.api.keys.is_empty() && !settings.api.metrics && settings.api != Api::default() {
            settings.not_yet.push("[api]: there is no key and no metrics, so nothing listens".to_owned());
        }
    }
    if let Some(section) = top.get("log").and_then(|entry| entry.section(known("log"), &mut notes)) {
        let words = [("all", Decisions::All), ("block", Decisions::Block), ("none", Decisions::None)];
        if let Some(decisions) = section.get("decisions").and_then(|entry| entry.word(&mut notes, &words)) {
            settings.log.decisions = decisions;
        }
        if let Some(entry) = section.get("keep_megabytes")
            && let Some(megabytes) = entry.number(&mut notes, KEEP_MEGABYTES)
        {
            settings.log.keep_bytes = u64::from(megabytes) * MEGABYTE;
        }
        if let Some(entry) = section.get("keep_days")
            && let Some(days) = entry.number(&mut notes, KEEP_DAYS)
        {
            settings.log.keep_age = DAY * days;
        }
    }
    if let Some(section) = top.get("kernel").and_then(|entry| entry.section(known("kernel"), &mut notes))
        && let Some(lock) = section.get("lock_table").and_then(|entry| entry.boolean(&mut notes))
    {
        settings.kernel.lock_table = lock;
    }
    if notes.mistakes.is_empty() {
        Ok(settings)
    } else {
        // In the order of the file, as people go through it.
        notes.mistakes.sort_by_key(|mistake| mistake.line);
        Err(notes.mistakes)
    }
}

/// The bounds of `log.keep_megabytes`.
const KEEP_MEGABYTES: std::ops::RangeInclusive<u32> = 1..=1_000_000;
/// The bounds of `dns.queries_per_second`; 0: no bound.
const QUERIES_PER_SECOND: std::ops::RangeInclusive<u32> = 0..=10_000_000;
/// The bounds of `dns.receivers`.
const RECEIVERS: std::ops::RangeInclusive<u32> = 1..=256;
/// The bounds of `log.keep_days`.
const KEEP_DAYS: std::ops::RangeInclusive<u32> = 1..=3650;

fn known(section: &str) -> &'static [&'static str] {
    SECTIONS.iter().find(|(name, _)| *name == section).map_or(&[], |(_, keys)| keys)
}

/// The parser's words on one line.
fn one_line(message: &str) -> String {
    message.split('\n').map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(", ")
}

fn policy_path(entry: &Entry<'_>, notes: &mut Notes<'_>) -> Option<PathBuf> {
    let example = "/config/clawgress/policy.json";
    let path = entry.path(notes, example)?;
    let text = path.to_string_lossy();
    if text.ends_with('/') || path.file_name().is_none() {
        entry.wrong(
            notes,
            format!("{} is a directory", quoted(&text)),
            format!("name the file, as in {}", quoted(example)),
        );
        return None;
    }
    Some(path)
}

fn runtime_dir(entry: &Entry<'_>, notes: &mut Notes<'_>) -> Option<PathBuf> {
    let path = entry.path(notes, "/run/clawgress")?;
    let length = socket_in(&path).as_os_str().len();
    if length > MAX_SOCKET_PATH {
        entry.wrong(
            notes,
            format!("the socket's path would be {length} bytes long; the system takes {MAX_SOCKET_PATH}"),
            "choose a shorter path",
        );
        return None;
    }
    Some(path)
}

fn dns(section: &Section<'_>, dns: &mut Dns, notes: &mut Notes<'_>) {
    if let Some(entry) = section.get("listen")
        && let Some(list) = entry.list(notes, "[\"0.0.0.0:53\", \"[::]:53\"]")
    {
        if list.is_empty() {
            entry.wrong(notes, "is empty: no agent could ask for a name", "remove the line to listen on every address");
        }
        let mut listen = Vec::new();
        for item in &list {
            let Some(address) = item.listener(notes, "192.168.10.1:53") else { continue };
            if listen.contains(&address) {
                item.wrong(notes, format!("{address} is there already"), "remove one of the two");
            }
            listen.push(address);
        }
        dns.listen = listen;
    }
    if let Some(entry) = section.get("upstreams")
        && let Some(list) = entry.list(notes, "[\"9.9.9.9\"]")
    {
        if list.is_empty() {
            let hint = "name one, or remove the line to use the servers of /etc/resolv.conf";
            entry.wrong(notes, "is empty: no name could be resolved", hint);
        }
        let texts = list.iter().filter_map(|item| item.text(notes, "9.9.9.9"));
        dns.upstreams = Some(texts.map(|text| text.trim().to_owned()).collect());
    }
    if let Some(redirect) = section.get("redirect").and_then(|entry| entry.boolean(notes)) {
        dns.redirect = redirect;
    }
    let words = [("refuse", OutOfScope::Refuse), ("forward", OutOfScope::Forward)];
    if let Some(out_of_scope) = section.get("out_of_scope").and_then(|entry| entry.word(notes, &words)) {
        dns.out_of_scope = out_of_scope;
    }
    if let Some(number) = section.get("queries_per_second").and_then(|entry| entry.number(notes, QUERIES_PER_SECOND)) {
        dns.queries_per_second = NonZeroU32::new(number);
    }
    if let Some(number) = section.get("receivers").and_then(|entry| entry.number(notes, RECEIVERS)) {
        dns.receivers = usize::try_from(number).ok().and_then(NonZeroUsize::new);
    }
}

fn api(section: &Section<'_>, notes: &mut Notes<'_>) -> Api {
    let mut api = Api::default();
    if let Some(listen) = section.get("listen").and_then(|entry| entry.listener(notes, "127.0.0.1:8787")) {
        api.listen = listen;
    }
    api.tls = section.get("tls").and_then(|entry| {
        let tls = entry.section(&["certificate", "key"], notes)?;
        let hint = "tls = { certificate = \"/…/cert.pem\", key = \"/…/key.pem\" }";
        let certificate = tls.required("certificate", hint, notes);
        let key = tls.required("key", hint, notes);
        Some(Tls {
            certificate: certificate?.path(notes, "/etc/clawgress/cert.pem")?,
            key: key?.path(notes, "/etc/clawgress/key.pem")?,
        })
    });
    let example = "[ { id = \"automation\", key = \"…\", role = \"write\" } ]";
    for entry in section.get("keys").and_then(|entry| entry.list(notes, example)).unwrap_or_default() {
        let Some(key) = api_key(&entry, notes) else { continue };
        if api.keys.iter().any(|other| other.id == key.id) {
            entry.wrong(notes, format!("the id {} is there already", quoted(&key.id)), "give each key its own id");
        }
        api.keys.push(key);
    }
    api.metrics = section.get("metrics").and_then(|entry| entry.boolean(notes)).unwrap_or(false);
    api
}

fn api_key(entry: &Entry<'_>, notes: &mut Notes<'_>) -> Option<ApiKey> {
    let section = entry.section(&["id", "key", "key_file", "role"], notes)?;
    let id = section.required("id", "id is the name by which logs call the key", notes);
    let id = id.and_then(|entry| entry.text(notes, "automation"));
    let role = section.required("role", "role = \"read\" or role = \"write\"", notes);
    let role = role.and_then(|entry| entry.word(notes, &[("read", Role::Read), ("write", Role::Write)]));
    let secret = match (section.get("key"), section.get("key_file")) {
        (Some(key), None) => key.text(notes, "…").map(|text| Secret::Here(text.to_owned())),
        (None, Some(file)) => file.path(notes, "/etc/clawgress/automation.key").map(Secret::InFile),
        (Some(_), Some(file)) => {
            file.wrong(notes, "key is there as well", "keep one of the two");
            None
        }
        (None, None) => {
            entry.wrong(notes, "key is missing", "write key = \"…\" or key_file = \"/…\"");
            None
        }
    };
    Some(ApiKey { id: id?.to_owned(), secret: secret?, role: role? })
}
