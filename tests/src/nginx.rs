//! nginx as an endpoint.

use crate::programs::{Server, find};
use std::{fs, path::Path, process::Command};

/// What each one has: `/` says its name, `/headers` what it was asked with, `/files/` are files that can be put and
/// got, `/gzip/` is packed on its way, `/slow` takes its time, `/status/NNN` has that status.
const CONFIG: &str = r#"
daemon off; master_process off; pid DIR/pid; error_log DIR/error.log warn;
events { worker_connections 2048; }
http {
  access_log DIR/access.log; client_max_body_size 0; keepalive_requests 1000000; default_type text/plain;
  client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; fastcgi_temp_path DIR/f; uwsgi_temp_path DIR/u; scgi_temp_path DIR/s;
  keepalive_timeout 75s; root DIR/root; sendfile on; output_buffers 2 64k;
  server {
    listen ADDRESS LISTEN;
    location = / { return 200 "NAME\n"; }
    location = /headers { return 200 "host=$http_host xff=$http_x_forwarded_for xfp=$http_x_forwarded_proto id=$http_x_request_id via=$http_via tp=$http_traceparent conn=$http_connection secret=$http_x_secret\n"; }
    location /files/ { dav_methods PUT DELETE; create_full_put_path on; }
    location /gzip/ { gzip on; gzip_types text/plain; gzip_min_length 1; gzip_proxied any; gzip_http_version 1.0; alias DIR/root/files/; }
    location /slow/ { alias DIR/root/files/; limit_rate 64k; }
    location /status/200 { return 200 "NAME\n"; }
    location /status/204 { return 204; }
    location /status/404 { return 404 "NAME\n"; }
    location /status/500 { return 500 "NAME\n"; }
    location /status/503 { return 503 "NAME\n"; }
  }
}
"#;

/// A running nginx.
#[derive(Debug)]
pub struct Nginx(Server);

impl Nginx {
    /// One that speaks HTTP/1.1.
    ///
    /// # Errors
    /// Where it is not installed.
    pub fn http1(name: &str) -> Result<Self, String> {
        Self::start(name, "")
    }

    /// One that speaks HTTP/2 in clear text and nothing else.
    ///
    /// # Errors
    /// Where it is not installed.
    pub fn http2(name: &str) -> Result<Self, String> {
        Self::start(name, "http2")
    }

    fn start(name: &str, listen: &str) -> Result<Self, String> {
        let program = find("nginx").ok_or("needs `nginx`, which `cargo xtask setup` installs")?;
        let (dir, port) = Server::place();
        let path = dir.path().to_string_lossy().into_owned();
        let mut config = CONFIG.replace("DIR", &path).replace("ADDRESS", &port.address());
        config = config.replace("LISTEN", listen).replace("NAME", name);
        let file = dir.path().join("nginx.conf");
        let written = fs::create_dir_all(dir.path().join("root/files")).and_then(|()| fs::write(&file, config));
        written.expect("a test's directory can be written");
        let mut command = Command::new(program);
        command.arg("-c").arg(&file).arg("-p").arg(dir.path());
        Ok(Self(Server::start(command, dir, port)))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        self.0.address()
    }

    /// The directory of `/files/`.
    #[must_use]
    pub fn files(&self) -> impl AsRef<Path> + use<> {
        self.0.dir().join("root/files")
    }

    /// How many requests it has answered, by its own log.
    #[must_use]
    pub fn answered(&self) -> usize {
        fs::read_to_string(self.0.dir().join("access.log")).unwrap_or_default().lines().count()
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        self.0.kill();
    }
}
