//! A large configuration. Ignored by default: a debug build says nothing about time.

use super::*;
use std::{fmt::Write, fs, time::Instant};

fn large(services: u32) -> String {
    let mut text = String::from("services:\n");
    for i in 0..services {
        let [_, a, b, c] = i.to_be_bytes();
        write!(
            text,
            "  - name: service-{i}\n    addresses: [\"10.{a}.{b}.{c}:80\"]\n    load_balancing:\n      policy: random\n    \
             endpoints:\n"
        )
        .unwrap();
        for j in 0..3 {
            writeln!(
                text,
                "      - {{ address: \"172.{}.{b}.{c}:{}\", weight: {j}, zone: eu-west-1a }}",
                16 + a,
                8080 + j
            )
            .unwrap();
        }
    }
    text
}

/// The most memory this process ever used.
fn peak() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find(|l| l.starts_with("VmHWM")).unwrap_or_default().to_owned()
}

#[test]
#[ignore = "for release builds: cargo test --release config::tests::scale -- --ignored --nocapture"]
fn a_hundred_thousand_services_load_within_two_seconds() {
    let text = large(100_000);
    println!("{} MB of text; {}", text.len() / 1_000_000, peak());
    let start = Instant::now();
    let loaded = check(&text).unwrap();
    let took = start.elapsed();
    println!("loaded in {took:?}; {}", peak());
    let start = Instant::now();
    assert_eq!(loaded.config.services().len(), 100_000);
    println!("facts in {:?}", start.elapsed());
    assert!(took.as_secs_f64() < 2.0, "{took:?}");
}
