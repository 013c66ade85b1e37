//! What other tables do that undoes the gateway's work: rules that switch connection tracking off, and flowtables.

use super::Kernel;
use super::error::KernelError;
use super::message::{ANY, Attrs, DUMP, INET, Message};
use super::uapi::{LIST_ELEM, flowtable, msg, rule, table};
use crate::plan::ir::TABLE;

/// How often the question is asked again when others change the ruleset meanwhile; then the last answer counts.
const TRIES: usize = 4;

/// A flowtable: packets of flows in it are forwarded before any chain sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flowtable {
    /// The table it is in.
    pub table: String,
    /// Its name.
    pub name: String,
    /// The interfaces whose packets it takes.
    pub devices: Vec<String>,
}

impl Kernel {
    /// Whether a rule of another table, of any family, can exempt packets from connection tracking: `notrack`, or the
    /// targets `CT --notrack` and `NOTRACK` of iptables-nft. Rules of the old iptables (not nf_tables) are not seen.
    ///
    /// # Errors
    /// The socket's.
    pub fn foreign_notrack(&mut self) -> Result<bool, KernelError> {
        let mut found = false;
        self.everywhere(msg::GET_RULE, |message| {
            let expressions = message.attrs().nested(rule::EXPRESSIONS).into_iter().flatten();
            found |= expressions.filter(|(kind, _)| *kind == LIST_ELEM).any(|(_, one)| untracks(Attrs(one)));
        })?;
        Ok(found)
    }

    /// The flowtables of other tables.
    ///
    /// # Errors
    /// The socket's.
    pub fn foreign_flowtables(&mut self) -> Result<Vec<Flowtable>, KernelError> {
        let mut found = Vec::new();
        self.everywhere(msg::GET_FLOWTABLE, |message| {
            let attrs = message.attrs();
            if message.nft() == Some(msg::NEW_FLOWTABLE) {
                let flowtable = Flowtable {
                    table: attrs.text(flowtable::TABLE).unwrap_or_default().to_owned(),
                    name: attrs.text(flowtable::NAME).unwrap_or_default().to_owned(),
                    devices: devices(attrs),
                };
                if !found.contains(&flowtable) {
                    found.push(flowtable);
                }
            }
        })?;
        Ok(found)
    }

    fn everywhere(&mut self, kind: i32, mut each: impl FnMut(&Message<'_>)) -> Result<(), KernelError> {
        for _ in 0..TRIES {
            let answer = self.question(
                |writer| {
                    writer.begin(kind, DUMP, ANY);
                    writer.end();
                },
                |message| {
                    if message.family() != INET || message.attrs().text(table::NAME) != Some(TABLE) {
                        each(message);
                    }
                },
            )?;
            if answer != Some(false) {
                break;
            }
        }
        Ok(())
    }
}

fn untracks(expression: Attrs<'_>) -> bool {
    /// `NFTA_TARGET_NAME`, `NFTA_TARGET_INFO`.
    const TARGET_NAME: u16 = 1;
    const TARGET_INFO: u16 = 3;
    /// `XT_CT_NOTRACK`, in the first 16 bits of `struct xt_ct_target_info`.
    const NOTRACK: u16 = 1;
    match expression.text(rule::EXPR_NAME) {
        Some("notrack") => true,
        Some("target") => {
            let Some(target) = expression.nested(rule::EXPR_DATA) else { return false };
            match target.text(TARGET_NAME) {
                Some("NOTRACK") => true,
                Some("CT") => {
                    let flags = target.get(TARGET_INFO).and_then(|info| info.first_chunk::<2>());
                    flags.is_some_and(|flags| u16::from_ne_bytes(*flags) & NOTRACK != 0)
                }
                _ => false,
            }
        }
        _ => false,
    }
}

fn devices(attrs: Attrs<'_>) -> Vec<String> {
    let list = attrs.nested(flowtable::HOOK).and_then(|hook| hook.nested(flowtable::HOOK_DEVICES));
    list.into_iter()
        .flatten()
        .filter(|(kind, _)| *kind == flowtable::DEVICE)
        .filter_map(|(_, name)| std::str::from_utf8(name.split(|octet| *octet == 0).next()?).ok())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::message::Writer;
    use super::*;

    /// An expression as `NFTA_EXPR_*` attributes, with what `target` writes into its data.
    fn expression(name: &str, target: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::new(1);
        writer.text(rule::EXPR_NAME, name);
        let data = writer.open(rule::EXPR_DATA);
        target(&mut writer);
        writer.close(data);
        writer.octets
    }

    fn target(name: &str, flags: u16) -> Vec<u8> {
        expression("target", |writer| {
            writer.text(1, name);
            writer.attr(3, &[&flags.to_ne_bytes()[..], &[0; 30]].concat());
        })
    }

    #[test]
    fn every_way_to_untrack_is_known() {
        assert!(untracks(Attrs(&expression("notrack", |_| {}))));
        assert!(untracks(Attrs(&target("CT", 1))));
        assert!(untracks(Attrs(&target("NOTRACK", 0))));
        assert!(!untracks(Attrs(&target("CT", 2))));
        assert!(!untracks(Attrs(&target("MARK", 1))));
        assert!(!untracks(Attrs(&expression("ct", |_| {}))));
    }

    #[test]
    fn the_devices_of_a_flowtable_are_read() {
        let mut writer = Writer::new(1);
        let hook = writer.open(flowtable::HOOK);
        writer.u32(1, 0);
        let list = writer.open(flowtable::HOOK_DEVICES);
        writer.text(flowtable::DEVICE, "eth0");
        writer.text(flowtable::DEVICE, "eth1");
        writer.close(list);
        writer.close(hook);
        assert_eq!(devices(Attrs(&writer.octets)), ["eth0", "eth1"]);
    }
}
