//! A browser that nobody looks at: headless Chromium, told what to do by its DevTools protocol over two pipes.

use crate::{Value, json, poll, programs};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};
use tempfile::TempDir;

/// How long an answer may take: the first one comes when the browser has started.
const LIMIT: Duration = Duration::from_secs(60);

/// Nothing that a browser does by itself, and nothing that a container does not let it do.
const OPTIONS: [&str; 13] = [
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
];

/// A browser with one page. Dropped, it is ended.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    last_id: u64,
    /// Names the page in messages.
    session: String,
    /// What it said without being asked.
    events: Vec<Value>,
    dir: TempDir,
}

impl Browser {
    /// Starts one, 1280 pixels wide.
    ///
    /// # Errors
    /// Where none is installed.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn start() -> Result<Self, String> {
        let program = programs::find("chromium").ok_or("needs `chromium`, which `cargo xtask setup` installs")?;
        // On a busy machine it crashes now and then before it has started.
        let mut tries = (0..3).map(|_| {
            let mut browser = Self::launch(&program);
            let target = browser.try_ask("Target.createTarget", json!({ "url": "about:blank" }))?;
            Ok::<_, String>((browser, target))
        });
        let (mut browser, target) = match tries.find(Result::is_ok) {
            Some(Ok(started)) => started,
            _ => panic!("chromium does not start"),
        };
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.ask("Target.attachToTarget", attach)["sessionId"].clone();
        browser.session = session.as_str().expect("a session has a name").to_owned();
        for domain in ["Page", "Runtime", "Log", "Network", "Audits"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        browser.size(1280, 900);
        Ok(browser)
    }

    fn launch(program: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("mesh-test-browser-").tempdir().expect("a directory can be made");
        let log = fs::File::create(dir.path().join("log")).expect("a test's directory can be written");
        // It is told at descriptor 3 and answers at 4. A shell puts the two pipes there.
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >&2"#]).arg(program).args(OPTIONS);
        command.arg(format!("--user-data-dir={}", dir.path().join("profile").display())).env("HOME", dir.path());
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn();
        let mut child = child.expect("a shell starts");
        let to = child.stdin.take().expect("it is a pipe");
        let from = listen(child.stdout.take().expect("it is a pipe"));
        Self { child, to, from, last_id: 0, session: String::new(), events: Vec::new(), dir }
    }

    /// Calls a method of the protocol.
    ///
    /// # Panics
    /// Where it fails.
    #[track_caller]
    pub fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.try_ask(method, parameters).unwrap_or_else(|why| panic!("{why}"))
    }

    fn try_ask(&mut self, method: &str, parameters: Value) -> Result<Value, String> {
        self.last_id += 1;
        let id = self.last_id;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let sent = self.to.write_all(format!("{message}\0").as_bytes()).and_then(|()| self.to.flush());
        sent.map_err(|e| format!("{method}: {e}\n{}", self.log()))?;
        loop {
            let said = self.from.recv_timeout(LIMIT);
            let mut said = said.map_err(|_| format!("{method}: no answer\n{}", self.log()))?;
            if said["id"] != id {
                self.events.push(said);
                continue;
            }
            if !said["error"].is_null() {
                return Err(format!("{method} {}: {said}", message["params"]));
            }
            return Ok(said["result"].take());
        }
    }

    /// The value of an expression of JavaScript, awaited if it is a promise.
    ///
    /// # Panics
    /// Where it throws.
    #[track_caller]
    pub fn eval(&mut self, expression: &str) -> Value {
        self.try_eval(expression).unwrap_or_else(|why| panic!("{expression}: {why}"))
    }

    fn try_eval(&mut self, expression: &str) -> Result<Value, String> {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut said = self.ask("Runtime.evaluate", parameters);
        match said["exceptionDetails"]["exception"]["description"].as_str() {
            Some(why) => Err(why.to_owned()),
            None => Ok(said["result"]["value"].take()),
        }
    }

    /// Waits until an expression is as `expected`.
    ///
    /// # Panics
    /// Where it does not become so.
    #[track_caller]
    pub fn shows(&mut self, expression: &str, expected: impl Into<Value>) {
        let expected = expected.into();
        let found = poll::within(poll::PATIENCE, || match self.try_eval(expression) {
            Ok(seen) if seen == expected => Ok(()),
            // What it is about may not be there yet.
            Ok(seen) => Err(seen.to_string()),
            Err(why) => Err(why),
        });
        if let Err(seen) = found {
            let text = self.eval("document.body.innerText");
            panic!("{expression}: {seen}, not {expected}; the page:\n{}", text.as_str().unwrap_or_default());
        }
    }

    /// Goes to an address, and waits until a document is there.
    ///
    /// # Panics
    /// Where none comes.
    #[track_caller]
    pub fn open(&mut self, url: &str) {
        let went = self.ask("Page.navigate", json!({ "url": url }));
        assert!(went["errorText"].is_null(), "{url}: {went}");
        self.shows("document.readyState", "complete");
    }

    /// Presses a key, by its name in events: `a`, `Enter`, `ArrowDown`.
    pub fn press(&mut self, key: &str) {
        let text = match key {
            "Enter" => "\r",
            _ if key.chars().count() == 1 => key,
            _ => "",
        };
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            "Tab" => 9,
            _ => 0,
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let event = json!({ "type": kind, "key": key, "text": text, "windowsVirtualKeyCode": code });
            self.ask("Input.dispatchKeyEvent", event);
        }
    }

    /// The size of the page, in pixels.
    pub fn size(&mut self, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.ask("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// What the system's colours are: `light` or `dark`.
    pub fn scheme(&mut self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.ask("Emulation.setEmulatedMedia", json!({ "features": [feature] }));
    }

    /// A picture of the page, as PNG.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn picture(&mut self, path: &Path) {
        let taken = self.ask("Page.captureScreenshot", json!({ "format": "png" }));
        let bytes = STANDARD.decode(taken["data"].as_str().unwrap_or_default()).expect("it is base64");
        fs::write(path, bytes).expect("a picture can be written");
    }

    /// Everything that went wrong in the page: exceptions, errors and warnings at the console, what the policy forbade.
    /// Not: answers that are no success, which a browser complains of as well.
    pub fn complaints(&mut self) -> Vec<String> {
        // What was said until now has been heard when this is answered.
        self.eval("0");
        self.trouble()
    }

    fn trouble(&self) -> Vec<String> {
        let told = |event: &Value| match event["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => true,
            "Runtime.consoleAPICalled" => {
                ["error", "warning", "assert"].iter().any(|kind| event["params"]["type"] == *kind)
            }
            "Log.entryAdded" => {
                let entry = &event["params"]["entry"];
                entry["level"] != "verbose" && entry["level"] != "info" && entry["source"] != "network"
            }
            "Audits.issueAdded" => event["params"]["issue"]["code"] == "ContentSecurityPolicyIssue",
            _ => false,
        };
        self.events.iter().filter(|event| told(event)).map(Value::to_string).collect()
    }

    /// Every address that was asked for, each time.
    pub fn asked_for(&mut self) -> Vec<String> {
        self.eval("0");
        let requests = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        requests.filter_map(|event| Some(event["params"]["request"]["url"].as_str()?.to_owned())).collect()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

/// What the browser says: JSON, each with a zero behind it.
fn listen(from: ChildStdout) -> Receiver<Value> {
    let (told, heard) = mpsc::channel();
    let mut from = BufReader::new(from);
    thread::spawn(move || {
        let mut message = Vec::new();
        while from.read_until(0, &mut message).is_ok_and(|read| read > 0) {
            message.pop();
            let Ok(said) = serde_json::from_slice(&message) else { return };
            if told.send(said).is_err() {
                return;
            }
            message.clear();
        }
    });
    heard
}

impl Drop for Browser {
    fn drop(&mut self) {
        let close = json!({ "id": 0, "method": "Browser.close" });
        let _ = self.to.write_all(format!("{close}\0").as_bytes()).and_then(|()| self.to.flush());
        // With all its processes, which write into the directory.
        let ended = poll::within(Duration::from_secs(10), || self.child.try_wait().ok().flatten().ok_or(()));
        if ended.is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            eprintln!("--- what the page complained of\n{}\n---", self.trouble().join("\n"));
        }
    }
}
