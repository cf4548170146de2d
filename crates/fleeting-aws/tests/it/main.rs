//! Auto Scaling groups as instance groups, against stand-ins for AWS.

mod behaviour;
mod common;
mod conformance;
mod connect;
mod doctor;
