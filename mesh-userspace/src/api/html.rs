//! The page at `/`.

/// What can be found here. Nothing in it comes from outside, so nothing has to be escaped.
pub(super) const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>mesh</title>
<style>body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem; } code { font-size: 1rem; }</style>
</head>
<body>
<h1>mesh</h1>
<p>The admin interface of this node, read-only. Changes are made with the <code>mesh</code> command.</p>
<ul>
<li><a href="/metrics"><code>/metrics</code></a> metrics in Prometheus text format</li>
<li><a href="/health"><code>/health</code></a> whether the process works</li>
<li><a href="/ready"><code>/ready</code></a> whether the node can be relied upon</li>
<li><a href="/v1/status"><code>/v1/status</code></a> the daemon as a whole</li>
<li><a href="/v1/services"><code>/v1/services</code></a> services; <code>?name=NAME</code> for one</li>
<li><a href="/v1/endpoints"><code>/v1/endpoints</code></a> endpoints; <code>?service=NAME</code> for those of one</li>
<li><a href="/v1/connections"><code>/v1/connections</code></a> live connections; <code>?service=</code>,
<code>?endpoint=</code>, <code>?sort=sent|received|age|rtt</code>, <code>?limit=</code></li>
<li><code>/v1/explain?address=IP:PORT</code> what a connection to this address would meet now, and why</li>
<li><a href="/v1/config"><code>/v1/config</code></a> the running configuration, defaults filled in</li>
</ul>
</body>
</html>
"#;
