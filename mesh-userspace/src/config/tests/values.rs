//! Texts with rules of their own.

use super::*;
use proptest::prelude::*;

#[test]
fn durations_are_read_and_written_in_their_shortest_form() {
    for (text, milliseconds, shortest) in [
        ("0s", 0, "0s"),
        ("0ms", 0, "0s"),
        ("250ms", 250, "250ms"),
        ("5s", 5_000, "5s"),
        ("1m", 60_000, "1m"),
        ("60s", 60_000, "1m"),
        ("90s", 90_000, "1m30s"),
        ("1m30s", 90_000, "1m30s"),
        ("1500ms", 1_500, "1s500ms"),
        ("2h", 7_200_000, "2h"),
        ("1h1m1s1ms", 3_661_001, "1h1m1s1ms"),
        ("007s", 7_000, "7s"),
        ("720h", 2_592_000_000, "720h"),
    ] {
        let duration: Duration = text.parse().unwrap();
        assert_eq!(duration.get().as_millis(), milliseconds, "{text}");
        assert_eq!(duration.to_string(), shortest);
        assert_eq!(serde_json::to_string(&duration).unwrap(), format!("\"{shortest}\""));
    }
}

#[test]
fn what_is_no_duration_is_refused_with_what_to_do() {
    for (text, complaint) in [
        ("", "expected a duration such as 250ms, 5s or 1m30s, found \"\""),
        ("5", "expected a duration such as 250ms, 5s or 1m30s, found \"5\"; add the unit: ms, s, m or h"),
        ("5 s", "expected a duration such as 250ms, 5s or 1m30s, found \"5 s\""),
        ("s", "expected a duration such as 250ms, 5s or 1m30s, found \"s\""),
        ("-5s", "expected a duration such as 250ms, 5s or 1m30s, found \"-5s\""),
        ("1.5s", "expected a duration such as 250ms, 5s or 1m30s, found \"1.5s\"; use whole numbers: 1500ms, not 1.5s"),
        ("1s1m", "expected a duration such as 250ms, 5s or 1m30s, found \"1s1m\""),
        ("1s1s", "expected a duration such as 250ms, 5s or 1m30s, found \"1s1s\""),
        ("1d", "expected a duration such as 250ms, 5s or 1m30s, found \"1d\""),
        ("721h", "expected a duration of at most 720h (30 days), found \"721h\""),
        ("99999999999999999999s", "expected a duration of at most 720h (30 days), found \"99999999999999999999s\""),
    ] {
        assert_eq!(text.parse::<Duration>().unwrap_err(), complaint);
    }
}

#[test]
fn sizes_are_read_and_written_in_their_shortest_form() {
    for (text, bytes, shortest) in [
        ("1MiB", 1 << 20, "1MiB"),
        ("1024KiB", 1 << 20, "1MiB"),
        ("1025KiB", 1025 << 10, "1025KiB"),
        ("032MiB", 32 << 20, "32MiB"),
        ("2048MiB", 2 << 30, "2GiB"),
        ("64GiB", 64 << 30, "64GiB"),
    ] {
        let size: ByteSize = text.parse().unwrap();
        assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, shortest), "{text}");
    }
    for text in ["", "MiB", "32", "32 MiB", "32mib", "32B", "-1MiB", "1.5MiB", "65GiB", "18446744073709551615GiB"] {
        assert!(text.parse::<ByteSize>().is_err(), "{text}");
    }
}

#[test]
fn v4_mapped_addresses_are_their_v4_address() {
    let vip: Vip = "[::ffff:10.0.0.1]:80".parse().unwrap();
    assert_eq!(vip.to_string(), "10.0.0.1:80");
    let endpoint: EndpointAddress = "[::ffff:a00:1]:80".parse().unwrap();
    assert_eq!(endpoint.to_string(), "10.0.0.1:80");
}

#[test]
fn lengths_are_bounded() {
    let check = |length: usize| {
        let name = "a".repeat(length);
        let parts = "a.".repeat(length / 2 - 1) + &"a".repeat(2 + length % 2);
        let text = format!(
            "node: {{ name: {name} }}\nadmin: {{ socket: /{name} }}\nservices: [{{ name: {parts}, endpoints: [{{ address: 10.0.0.1:1, \
             zone: {name} }}] }}]"
        );
        check(&text).map_or_else(|errors| errors.mistakes().iter().map(|m| m.field.clone()).collect(), |_| Vec::new())
    };
    assert_eq!(check(106), [""; 0]);
    assert_eq!(check(107), ["admin.socket"]);
    assert_eq!(check(253), ["admin.socket"]);
    assert_eq!(check(254), ["node.name", "admin.socket", "services[0].name", "services[0].endpoints[0].zone"]);
}

#[test]
fn any_unicast_address_can_be_a_vip() {
    for text in ["127.0.0.1:1", "240.10.0.1:80", "0.0.0.1:80", "[::1]:65535", "[fe80::1]:80", "169.254.1.1:53"] {
        assert_eq!(text.parse::<Vip>().unwrap().to_string(), text);
    }
}

#[test]
fn the_log_takes_levels_and_directives() {
    for level in ["trace", "info,mesh_userspace::kernel=debug", "hyper=warn", "error, aya = debug"] {
        let found = check(&format!("telemetry: {{ log: {{ level: {level:?} }} }}"));
        assert_eq!(found.is_ok(), !level.contains(" = "), "{level}");
    }
}

#[test]
fn every_text_of_the_shape_has_an_expectation_that_its_rule_refuses() {
    for kind in text::KINDS {
        assert!(!kind.expected.is_empty());
        assert!((kind.check)("\0").is_err(), "{}", kind.name);
    }
}

proptest! {
    #[test]
    fn a_duration_reads_what_it_writes(milliseconds in 0..=2_592_000_000_u64) {
        let duration = Duration::from_millis(milliseconds);
        prop_assert_eq!(duration.to_string().parse::<Duration>(), Ok(duration));
    }

    #[test]
    fn no_text_makes_a_rule_panic(text in ".{0,300}") {
        for kind in text::KINDS {
            let _ = (kind.check)(&text);
        }
    }

    #[test]
    fn an_almost_right_text_makes_no_rule_panic(text in "[0-9a-f:.\\[\\]%/smh-]{0,40}") {
        for kind in text::KINDS {
            let _ = (kind.check)(&text);
        }
    }
}

#[test]
fn aliases_stand_for_what_they_name() {
    let text = "
services:
  - name: one
    addresses: [10.0.0.1:80]
    health_check: &never { type: none }
    endpoints: &ends [{ address: 10.1.0.1:80, weight: &heavy 7 }]
  - name: two
    addresses: [10.0.0.2:80]
    health_check: *never
    endpoints: *ends
  - { name: three, addresses: [10.0.0.3:80], endpoints: [{ address: 10.1.0.2:80, weight: *heavy }] }
";
    let written = text.replace("*never", "{ type: none }").replace("*ends", "[{ address: 10.1.0.1:80, weight: 7 }]");
    let written = ["&never ", "&ends ", "&heavy "].iter().fold(written.replace("*heavy", "7"), |t, a| t.replace(a, ""));
    let dumped = |text: &str| serde_json::to_string(&check(text).unwrap().config).unwrap();
    assert_eq!(dumped(text), dumped(&written));
}

#[test]
fn a_few_aliases_do_not_become_billions_of_values_nor_levels_without_end() {
    let mut wide = "node:\n  l0: &l0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n".to_owned();
    let mut deep = format!("node:\n  l0: &l0 {}1{}\n", "[".repeat(30), "]".repeat(30));
    for level in 1..12 {
        let last = format!("*l{}", level - 1);
        wide += &format!("  l{level}: &l{level} [{}]\n", [last.as_str(); 10].join(", "));
        deep += &format!("  l{level}: &l{level} {}{last}{}\n", "[".repeat(20), "]".repeat(20));
    }
    for (text, refusal) in [(wide, "copy more than 1000000 values"), (deep, "nested deeper than 64 levels")] {
        let errors = check(&text).unwrap_err().to_string();
        assert!(errors.contains(refusal), "{errors:.300}");
    }
}
