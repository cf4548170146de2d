//! The messages of the daemon's interface, version 3 of protocol buffers: package `nesting`, service `Nesting`.

use bytes::Bytes;
use prost::Message;

use crate::VirtualMachine;

/// The service, as it begins the path of each call.
pub(crate) const SERVICE: &str = "nesting.Nesting";

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct InitRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) config: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CreateRequest {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(int32, optional, tag = "2")]
    pub(crate) slot: Option<i32>,
}

/// The answer to `Create`, of both kinds of daemons. Those that know slots answer with a machine as a message and the id of the one
/// that had the slot; older ones with the fields of the machine itself. All of them have the same form on the wire, so they are
/// told apart here and not by their types: only the older answer has a third field.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CreateResponse {
    /// The machine, or the id of it.
    #[prost(bytes = "bytes", tag = "1")]
    first: Bytes,
    /// The id of the one that was in the way, or the name of this one.
    #[prost(string, optional, tag = "2")]
    second: Option<String>,
    /// The address.
    #[prost(string, optional, tag = "3")]
    addr: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeleteRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ListResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) vms: Vec<Machine>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Machine {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    addr: String,
}

// === impl CreateResponse ===

impl CreateResponse {
    /// The machine, and the id of the one that was in the way. The error says what is wrong with the answer.
    pub(crate) fn read(self) -> Result<(VirtualMachine, Option<String>), String> {
        let (machine, stomped) = match self.addr {
            Some(addr) => {
                let id = String::from_utf8(self.first.into()).map_err(|_| "the id is no text".to_owned())?;
                (Machine { id, name: self.second.unwrap_or_default(), addr }, None)
            }
            None => {
                let machine = Machine::decode(self.first);
                let machine = machine.map_err(|error| format!("the machine cannot be read: {error}"))?;
                (machine, self.second.filter(|id| !id.is_empty()))
            }
        };
        if machine.id.is_empty() {
            return Err("the machine has no id".to_owned());
        }
        Ok((machine.into(), stomped))
    }
}

// === impl VirtualMachine ===

impl From<Machine> for VirtualMachine {
    fn from(Machine { id, name, addr }: Machine) -> Self {
        Self { id, name, addr }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(hexadecimal: &[u8]) -> Result<(VirtualMachine, Option<String>), String> {
        CreateResponse::decode(hexadecimal).map_err(|error| error.to_string())?.read()
    }

    #[test]
    fn requests_have_the_bytes_that_daemons_read() {
        let init = InitRequest { config: Bytes::from_static(b"{}") };
        assert_eq!(init.encode_to_vec(), b"\x0a\x02{}");
        let create = |slot| CreateRequest { name: "macos".to_owned(), slot }.encode_to_vec();
        assert_eq!(create(None), b"\x0a\x05macos");
        assert_eq!(create(Some(0)), b"\x0a\x05macos\x10\x00", "slot 0 is a slot");
        assert_eq!(create(Some(1)), b"\x0a\x05macos\x10\x01");
        assert_eq!(DeleteRequest { id: "a".to_owned() }.encode_to_vec(), b"\x0a\x01a");
        assert_eq!(Empty {}.encode_to_vec(), b"");
    }

    #[test]
    fn answers_with_and_without_slots_are_understood() {
        let machine = |name: &str| VirtualMachine {
            id: "vm1".to_owned(),
            name: name.to_owned(),
            addr: "10.1.1.2".to_owned(),
        };
        assert_eq!(read(b"\x0a\x0f\x0a\x03vm1\x1a\x0810.1.1.2"), Ok((machine(""), None)));
        let stomped = read(b"\x0a\x0f\x0a\x03vm1\x1a\x0810.1.1.2\x12\x03vm0");
        assert_eq!(stomped, Ok((machine(""), Some("vm0".to_owned()))));
        let old = read(b"\x0a\x03vm1\x12\x05macos\x1a\x0810.1.1.2");
        assert_eq!(old, Ok((machine("macos"), None)), "an older daemon answers with the machine itself");
    }

    #[test]
    fn an_answer_that_is_neither_is_refused() {
        assert_eq!(read(b""), Err("the machine has no id".to_owned()));
        assert!(read(b"\x0a\x03vm1\x12\x05macos").is_err(), "an older answer without an address");
        assert!(read(b"\x0a\x02\xff\xff\x1a\x01a").is_err(), "an id that is no text");
    }
}
