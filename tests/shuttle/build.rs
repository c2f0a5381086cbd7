//! What of the protocols has to do with time and with sizes is left out here as it is under loom.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(loom)");
    println!("cargo::rustc-cfg=loom");
}
