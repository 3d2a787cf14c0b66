//! regex-lite under the name of regex.
//!
//! oci-spec checks one field of config.json, `execCPUAffinity`, with a regular expression of digits, commas and hyphens.
//! The crate that it does this with is a seventh of the binary's code, all of which the kernel counts as memory of each
//! container that starts (it maps a file by the large folio).

pub use regex_lite::*;
