//! What the daemon's HTTP side says.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a page may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// The body of a page, if the answer is 200. HTTP/1.0, so that it comes in one piece.
pub(super) fn get(address: SocketAddr, path: &str) -> Result<String, String> {
    let what = |error: std::io::Error| format!("http://{address}{path}: {error}");
    let mut stream = TcpStream::connect(address).map_err(what)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(what)?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes()).map_err(what)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(what)?;
    body(&text)
        .map(str::to_owned)
        .ok_or_else(|| format!("http://{address}{path}: {}", text.lines().next().unwrap_or("no answer")))
}

fn body(answer: &str) -> Option<&str> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    (head.split_whitespace().nth(1) == Some("200")).then_some(body)
}

/// A few lines out of the metrics: what [`Excerpt::typed`] says in a shell, [`Excerpt::of`] does here.
pub(super) struct Excerpt<'a> {
    /// Whole names.
    pub(super) metrics: &'a [&'a str],
    /// In a label.
    pub(super) about: &'a str,
}

impl Excerpt<'_> {
    pub(super) fn typed(&self, url: &str) -> String {
        let metrics = match self.metrics {
            [one] => (*one).to_owned(),
            several => format!("({})", several.join("|")),
        };
        format!("curl -s {url} | grep -E '^{metrics}\\{{.*\"{}\"' | grep -v ' 0$'", self.about)
    }

    pub(super) fn of<'page>(&self, page: &'page str) -> Vec<&'page str> {
        let about = format!("\"{}\"", self.about);
        let is_one = |line: &str, name: &&str| line.strip_prefix(*name).is_some_and(|rest| rest.starts_with('{'));
        let wanted = |line: &&str| {
            self.metrics.iter().any(|name| is_one(line, name)) && line.contains(&about) && !line.ends_with(" 0")
        };
        page.lines().filter(wanted).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_page_that_was_found_has_a_body() {
        assert_eq!(body("HTTP/1.0 200 OK\r\nx: y\r\n\r\nhello"), Some("hello"));
        assert_eq!(body("HTTP/1.0 503 Service Unavailable\r\n\r\nno"), None);
        assert_eq!(body("nonsense"), None);
    }

    #[test]
    fn an_excerpt_is_what_the_shell_would_print() {
        let page = "# HELP mesh_tcp_connections_opened_total of web\n\
                    mesh_tcp_connections_opened_total{service=\"web\",endpoint=\"127.0.1.1:8080\"} 7\n\
                    mesh_tcp_connections_opened_total{service=\"web\",endpoint=\"127.0.1.2:8080\"} 0\n\
                    mesh_tcp_connections_opened_total{service=\"echo\",endpoint=\"127.0.1.1:7000\"} 5\n\
                    mesh_tcp_connect_failures_total{service=\"web\",endpoint=\"127.0.1.2:8080\",reason=\"refused\"} 20\n\
                    mesh_tcp_sent_bytes_total{service=\"web\",endpoint=\"127.0.1.1:8080\"} 9\n";
        let excerpt = Excerpt {
            metrics: &["mesh_tcp_connections_opened_total", "mesh_tcp_connect_failures_total"],
            about: "web",
        };
        let lines: Vec<&str> = page.lines().collect();
        assert_eq!(excerpt.of(page), [lines[1], lines[4]]);
        let typed = excerpt.typed("http://h/metrics");
        let shell = typed.replace("curl -s http://h/metrics", "printf '%s' \"$PAGE\"");
        let shell = std::process::Command::new("sh").args(["-c", &shell]).env("PAGE", page).output().unwrap();
        assert_eq!(String::from_utf8(shell.stdout).unwrap().lines().collect::<Vec<_>>(), excerpt.of(page));
    }
}
