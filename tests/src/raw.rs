//! HTTP/1.1 byte by byte: a client that sends exactly what a test says and shows exactly what came back, and the
//! reading of messages that client and scripted server share.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

/// How long a peer may be silent.
const LIMIT: Duration = Duration::from_secs(20);

/// A message as it was on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The first line.
    pub start: String,
    /// Names in lower case, with their values, in order.
    pub headers: Vec<(String, String)>,
    /// The body without framing.
    pub body: Vec<u8>,
    /// Headers that came after a chunked body.
    pub trailers: Vec<(String, String)>,
    /// Every byte of it.
    pub bytes: Vec<u8>,
}

impl Message {
    /// The status code of an answer; 0 in a request.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default()
    }

    /// The method of a request.
    #[must_use]
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// The target of a request.
    #[must_use]
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The first value of a header, its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Every value of a header, its name in lower case.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Why the proxy answered itself, where it did: such an answer is from `server: mesh` and says why.
    ///
    /// # Panics
    /// Where one of both headers is there without the other.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        let (server, reason) = (self.header("server"), self.header("x-mesh-reason"));
        assert_eq!(server == Some("mesh"), reason.is_some(), "{self:?}");
        reason
    }
}

/// One end of a connection that speaks HTTP/1.1.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    /// Received and not yet taken.
    ahead: Vec<u8>,
    /// Everything that was ever received.
    received: Vec<u8>,
}

impl Wire {
    /// A connection to `HOST:PORT`.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn connect(address: &str) -> Self {
        Self::over(TcpStream::connect(address).unwrap_or_else(|e| panic!("{address}: {e}")))
    }

    /// Over a connection that there is.
    ///
    /// # Panics
    /// Where it takes no timeout.
    #[must_use]
    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout can be set");
        stream.set_write_timeout(Some(LIMIT)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("an option can be set");
        Self { stream, ahead: Vec::new(), received: Vec::new() }
    }

    /// The connection.
    #[must_use]
    pub const fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Everything that was received so far.
    #[must_use]
    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// Sends these bytes. Whether they arrived shows in what comes back.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Ends the sending direction.
    pub fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends the connection with a reset, not with a FIN.
    ///
    /// # Panics
    /// Where the socket does not take the option.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).expect("an option can be set");
    }

    /// Waits for bytes that come at once or not at all, for at most this long.
    pub fn patience(&self, limit: Duration) {
        let _ = self.stream.set_read_timeout(Some(limit));
    }

    /// The head of a request or an answer.
    ///
    /// # Errors
    /// Where the connection ends or breaks before, or the bytes are none.
    pub fn head(&mut self) -> io::Result<Message> {
        let mut message = Message::default();
        message.start = self.line(&mut message.bytes)?;
        message.headers = self.fields(&mut message.bytes)?;
        Ok(message)
    }

    /// A request with its body.
    ///
    /// # Errors
    /// As [`Wire::head`].
    pub fn request(&mut self) -> io::Result<Message> {
        let mut message = self.head()?;
        let framed = message.header("content-length").is_some() || message.header("transfer-encoding").is_some();
        if framed {
            self.body(&mut message)?;
        }
        Ok(message)
    }

    /// The final answer to a request with its body, after those with 1xx (other than 101).
    ///
    /// # Panics
    /// Where there is none.
    #[track_caller]
    pub fn answer(&mut self) -> Message {
        self.try_answer().unwrap_or_else(|e| panic!("no answer: {e}; {:?}", String::from_utf8_lossy(&self.received)))
    }

    /// As [`Wire::answer`].
    ///
    /// # Errors
    /// As [`Wire::head`].
    pub fn try_answer(&mut self) -> io::Result<Message> {
        loop {
            let mut message = self.head()?;
            match message.status() {
                101 => return Ok(message),
                100..200 => {}
                204 | 304 => return Ok(message),
                _ => {
                    self.body(&mut message)?;
                    return Ok(message);
                }
            }
        }
    }

    /// Sends a request and gives the answer.
    #[track_caller]
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Message {
        self.send(request);
        self.answer()
    }

    /// Sends a request and gives the answer, if there is one.
    ///
    /// # Errors
    /// As [`Wire::head`].
    pub fn try_answer_to(&mut self, request: &str) -> io::Result<Message> {
        self.send(request);
        self.try_answer()
    }

    /// What comes until the other side finishes. A reset is an end too.
    ///
    /// # Panics
    /// Where the other side neither says something nor ends for a long time.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        loop {
            match self.more() {
                Ok(0) => return std::mem::take(&mut self.ahead),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return std::mem::take(&mut self.ahead),
                Err(e) => panic!("neither bytes nor an end: {e}; {:?}", String::from_utf8_lossy(&self.received)),
            }
        }
    }

    /// At least one byte, or none at the end.
    ///
    /// # Errors
    /// Where the connection breaks.
    pub fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.ahead.is_empty() {
            self.more()?;
        }
        Ok(std::mem::take(&mut self.ahead))
    }

    /// Exactly so many bytes.
    ///
    /// # Errors
    /// Where the connection ends or breaks before.
    pub fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.ahead.len() < count {
            if self.more()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.ahead.drain(..count).collect())
    }

    fn more(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 65536];
        let count = self.stream.read(&mut buffer)?;
        self.ahead.extend(&buffer[..count]);
        // What tests look at lies at the beginning; a gigabyte need not be kept.
        if self.received.len() < 1 << 20 {
            self.received.extend(&buffer[..count]);
        }
        Ok(count)
    }

    fn line(&mut self, bytes: &mut Vec<u8>) -> io::Result<String> {
        loop {
            if let Some(end) = self.ahead.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = self.ahead.drain(..end + 2).collect();
                bytes.extend(&line);
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.more()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn fields(&mut self, bytes: &mut Vec<u8>) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line(bytes)?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| io::Error::other(format!("no header: {line:?}")))?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn body(&mut self, message: &mut Message) -> io::Result<()> {
        if message.all("transfer-encoding").iter().any(|v| v.ends_with("chunked")) {
            loop {
                let size = self.line(&mut message.bytes)?;
                let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16);
                let size = size.map_err(io::Error::other)?;
                if size == 0 {
                    message.trailers = self.fields(&mut message.bytes)?;
                    return Ok(());
                }
                let chunk = self.take(size + 2)?;
                message.body.extend(&chunk[..size]);
                message.bytes.extend(chunk);
            }
        }
        message.body = match message.header("content-length") {
            Some(length) => self.take(length.parse().map_err(io::Error::other)?)?,
            None => self.rest(),
        };
        message.bytes.extend(&message.body);
        Ok(())
    }
}

/// A GET of `path` at `host`, on a connection that is kept.
#[must_use]
pub fn get(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n")
}

/// A POST of `body`.
#[must_use]
pub fn post(host: &str, path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}
