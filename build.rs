//! Makes `stasis_entry` (src/sys/early.rs) the entry point of the binary, where there is one for the architecture.
//!
//! Not in builds without optimisation: their code calls memcpy and the like for everything, before libc has chosen them.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let architecture = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let optimised = std::env::var("OPT_LEVEL").is_ok_and(|level| level != "0");
    if optimised && matches!(architecture.as_str(), "x86_64" | "aarch64") {
        println!("cargo:rustc-link-arg-bin=stasis=-Wl,--entry=stasis_entry");
    }
}
