//! What load generators print, as numbers.

/// What one run of a load generator saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Load {
    /// Answered as they should be.
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) seconds: f64,
    /// Of bodies and heads.
    pub(super) bytes: f64,
    /// Time of a request in microseconds: half of them took no longer.
    pub(super) p50: Option<f64>,
    /// The same for 99 of 100.
    pub(super) p99: Option<f64>,
}

/// The report of `wrk --latency`.
pub(super) fn wrk(text: &str) -> Option<Load> {
    // `  161234 requests in 2.00s, 190.12MB read`
    let (count, rest) = text.lines().find_map(|line| line.trim().split_once(" requests in "))?;
    let (time, read) = rest.split_once(", ")?;
    let percentile =
        |name: &str| text.lines().find_map(|line| micros(line.trim().strip_prefix(name)?.strip_prefix('%')?.trim()));
    let mut load = Load {
        requests: count.parse().ok()?,
        seconds: micros(time)? / 1e6,
        bytes: bytes(read.strip_suffix(" read")?)?,
        p50: percentile("50"),
        p99: percentile("99"),
        ..Load::default()
    };
    if let Some((_, counts)) = text.split_once("Socket errors: ") {
        load.errors += numbers(counts.lines().next()?).iter().sum::<u64>();
    }
    if let Some((_, count)) = text.split_once("Non-2xx or 3xx responses: ") {
        let bad = numbers(count.lines().next()?).first().copied()?;
        load.errors += bad;
        load.requests = load.requests.saturating_sub(bad);
    }
    Some(load)
}

/// The report of `h2load --duration`, and what it wrote to its log file. Its own count of seconds leaves out neither
/// start nor end, so the time that was asked for is taken.
pub(super) fn h2load(text: &str, log: &str, seconds: f64) -> Option<Load> {
    // `requests: 9 total, 9 started, 9 done, 9 succeeded, 0 failed, 0 errored, 0 timeout`
    let counts = text.lines().find_map(|line| line.strip_prefix("requests: "))?;
    let [_, _, _, succeeded, failed, errored, timeout] = numbers(counts)[..] else { return None };
    let codes = text.lines().find_map(|line| line.strip_prefix("status codes: ")).unwrap_or_default();
    let wrong = if let [_, _, client, server] = statuses(codes)[..] { client + server } else { 0 };
    let traffic = text.lines().find_map(|line| line.strip_prefix("traffic: ")).unwrap_or_default();
    // `traffic: 1.00MB (1048576) total, ...`: the number in brackets is exact.
    let exact = traffic.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or("0", |(number, _)| number);
    let mut times: Vec<u64> = log.lines().filter_map(|line| line.split('\t').nth(2)?.trim().parse().ok()).collect();
    times.sort_unstable();
    let percentile = |percent: usize| {
        let at = (times.len() * percent / 100).min(times.len().checked_sub(1)?);
        times.get(at).map(|micros| *micros as f64)
    };
    Some(Load {
        requests: succeeded,
        // Some versions count an errored request as failed too.
        errors: failed.max(errored + timeout) + wrong,
        seconds,
        bytes: exact.parse().ok()?,
        p50: percentile(50),
        p99: percentile(99),
    })
}

/// `200 2xx, 0 3xx`: the counts without the names.
fn statuses(text: &str) -> Vec<u64> {
    text.split(", ").filter_map(|part| part.split(' ').next()?.parse().ok()).collect()
}

/// All whole numbers in the text.
fn numbers(text: &str) -> Vec<u64> {
    text.split(|letter: char| !letter.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// `512.00us`, `1.20ms`, `2.00s`, `1.00m`, in microseconds.
fn micros(text: &str) -> Option<f64> {
    with_unit(text, &[("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 6e7)])
}

/// `1.17GB`: wrk's units are powers of 1024.
fn bytes(text: &str) -> Option<f64> {
    let kib = 1024_f64;
    let units = [("KB", kib), ("MB", kib.powi(2)), ("GB", kib.powi(3)), ("TB", kib.powi(4)), ("B", 1.0)];
    with_unit(text, &units)
}

fn with_unit(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let at = text.find(|letter: char| letter.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(at);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRK: &str = "Running 2s test @ http://127.0.0.1:9/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   782.51us  155.92us   4.87ms   89.04%
    Req/Sec    81.86k     2.33k   84.79k    85.00%
  Latency Distribution
     50%  755.00us
     75%    0.85ms
     90%    0.93ms
     99%    1.23ms
  162868 requests in 2.00s, 191.05MB read
Requests/sec:  81398.10
Transfer/sec:     95.48MB
";

    #[test]
    fn a_report_of_wrk_is_read() {
        let load = wrk(WRK).unwrap();
        assert_eq!((load.requests, load.errors, load.seconds), (162_868, 0, 2.0));
        assert_eq!((load.p50, load.p99), (Some(755.0), Some(1230.0)));
        assert_eq!(load.bytes, 191.05 * 1_048_576.0);
    }

    #[test]
    fn errors_that_wrk_saw_are_counted_and_bad_answers_are_no_requests() {
        let bad = "  Socket errors: connect 0, read 3, write 0, timeout 2\n  Non-2xx or 3xx responses: 868\nReq";
        let load = wrk(&WRK.replace("Req", bad)).unwrap();
        assert_eq!((load.requests, load.errors), (162_000, 873));
        assert_eq!(wrk("unable to connect to 127.0.0.1:1 Connection refused\n"), None);
    }

    const H2LOAD: &str = "finished in 2.10s, 33000.50 req/s, 38.10MB/s
requests: 66001 total, 66257 started, 66001 done, 66001 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 66001 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 76.19MB (79886400) total, 6.55MB (6864104) headers (space savings 41.22%), 64.45MB (67585024) data
                     min         max         mean         sd        +/- sd
time for request:     1.20ms     30.11ms      7.61ms      1.33ms    90.00%
";

    #[test]
    fn a_report_of_h2load_is_read_with_its_log() {
        let log = "1\t200\t40\n2\t200\t10\n3\t200\t30\n4\t200\t20\n";
        let load = h2load(H2LOAD, log, 2.0).unwrap();
        assert_eq!((load.requests, load.errors, load.seconds), (66_001, 0, 2.0));
        assert_eq!(load.bytes, 79_886_400.0);
        assert_eq!((load.p50, load.p99), (Some(30.0), Some(40.0)));
    }

    #[test]
    fn what_h2load_calls_failed_or_errored_or_4xx_is_an_error_once() {
        let text = H2LOAD.replace("0 failed, 0 errored, 0 timeout", "5 failed, 5 errored, 0 timeout");
        let load = h2load(&text.replace("0 4xx, 0 5xx", "7 4xx, 1 5xx"), "", 2.0).unwrap();
        assert_eq!((load.errors, load.p50), (13, None));
        assert_eq!(h2load("could not resolve", "", 2.0), None);
    }
}
