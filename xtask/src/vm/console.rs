//! What the kernel says when it is in trouble.

/// Beginnings of what it says then, after its time stamp.
const TROUBLE: [&str; 12] = [
    "BUG: ",
    "Kernel panic",
    "Oops",
    "WARNING: ",
    "general protection fault",
    "kernel BUG at",
    "watchdog: BUG: soft lockup",
    "INFO: task ",
    "INFO: rcu_",
    "rcu: INFO: ",
    "UBSAN: ",
    "Out of memory: ",
];

/// The line, if it says that the kernel is in trouble.
pub(super) fn trouble(line: &str) -> Option<&str> {
    let line = line.trim_end();
    // `[    1.234567] text`, or `[    1.234567][  T12] text`.
    let mut text = line;
    while let Some((_, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        text = rest.trim_start();
    }
    TROUBLE.iter().any(|begin| text.starts_with(begin)).then_some(line)
}

/// The part of a console's text that shows what happened: from the first trouble on, else its end.
pub(super) fn telling(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().map(str::trim_end).collect();
    let begin = all.iter().position(|line| trouble(line).is_some()).unwrap_or(all.len().saturating_sub(lines));
    all[begin..].iter().take(lines).map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_seen_with_and_without_a_time_stamp() {
        for line in [
            "[    5.123456] BUG: kernel NULL pointer dereference, address: 0000000000000008\r\n",
            "[   12.000001][  T101] WARNING: CPU: 0 PID: 101 at net/ipv4/tcp.c:1 tcp_x+0x1/0x2",
            "Kernel panic - not syncing: Attempted to kill init!",
            "[   60.0] watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [mesh:99]",
            "[  130.1] INFO: task mesh:99 blocked for more than 120 seconds.",
            "[   21.1] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        ] {
            assert_eq!(trouble(line), Some(line.trim_end()));
        }
    }

    #[test]
    fn what_only_mentions_trouble_is_none() {
        for line in ["[    0.1] Command line: oops=panic panic=-1", "[    0.2] debug: BUG: is a word", "", "[", "[]"] {
            assert_eq!(trouble(line), None, "{line}");
        }
    }

    #[test]
    fn the_telling_part_begins_with_the_trouble() {
        let text = "[ 1.0] fine\n[ 2.0] BUG: x\n[ 2.1] Call Trace:\n[ 2.2] y\n";
        assert_eq!(telling(text, 2), "    [ 2.0] BUG: x\n    [ 2.1] Call Trace:\n");
        assert_eq!(telling("a\nb\nc\n", 2), "    b\n    c\n");
    }
}
