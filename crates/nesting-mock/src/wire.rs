//! The messages of the daemon's interface.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct InitRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) config: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct InitResponse {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CreateRequest {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(int32, optional, tag = "2")]
    pub(crate) slot: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CreateResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) vm: Option<VirtualMachine>,
    #[prost(string, optional, tag = "2")]
    pub(crate) stomped_vm_id: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct VirtualMachine {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(string, tag = "3")]
    pub(crate) addr: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeleteRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeleteResponse {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ListRequest {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ListResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) vms: Vec<VirtualMachine>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ShutdownRequest {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ShutdownResponse {}
