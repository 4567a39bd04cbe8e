//! What a peer may make us hold.

/// Streams that are opened at a time until an endpoint says how many it takes: as few as no endpoint should refuse
/// (RFC 9113, section 6.5.2).
const UNTIL_SETTINGS: usize = 100;

/// Limits of one connection. The defaults are for connections of clients; [`Limits::upstream`] has those for endpoints.
///
/// The most that one peer can make us buffer is the sum of
///
/// - what it sent and nobody took: `connection_window` (the windows of its streams are parts of it);
/// - what it asked for and does not read: `streams` × (`send_buffer` + 16 KiB), and 81 KiB of frames on their way to the
///   socket;
/// - 64 KiB that were read and not yet looked at;
/// - heads: `streams` × 4 × `header_list` (`h2` ends a connection whose head is larger than four times the limit and
///   answers 431 to what is between);
///
/// which are 4 MiB, 20 MiB, and 64 MiB with the defaults; the last in practice little, because heads are handed on at once.
///
/// A connection without requests holds 20 to 30 KiB, nearly all of it in `h2`.
///
/// What `h2` bounds itself: CONTINUATION frames of a head (`header_list` / `frame`, and a quarter more), empty DATA frames
/// (100 a connection), small DATA frames (what they cost beyond their bytes), streams that were reset before they were
/// accepted (`pending_resets`), streams that it resets for errors (`error_resets`), the table of HPACK (4 KiB). SETTINGS
/// and PING are answered before the next frame is read, so a flood of them by a peer that does not read stops there; by
/// one that reads, it costs time of this connection only (the runtime's budget ends its turn) and no memory.
///
/// What we add: the bound on frames that wait for the socket, and `early_resets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Streams at a time that a client may open, or that we open if the endpoint takes so many.
    pub streams: u32,
    /// Bytes that a peer may send on one stream before they are taken, 1 to 2³¹-1.
    pub stream_window: u32,
    /// The same for all streams of a connection together.
    ///
    /// `connection_window / stream_window` streams that nobody reads from stop all others, so it should be large against
    /// `stream_window`, above all on upstream connections, which clients share.
    pub connection_window: u32,
    /// Bytes of the largest head that is accepted, counted as RFC 9113, section 6.5.2 does.
    pub header_list: u32,
    /// Bytes of the largest frame that is accepted, 16,384 to 16,777,215.
    pub frame: u32,
    /// Bytes that one stream may have queued for a peer that does not read.
    pub send_buffer: usize,
    /// Streams that we reset and remember for a second, to ignore what is still on its way for them. What comes for one
    /// that is forgotten counts as an error of the peer.
    pub remembered_resets: usize,
    /// Streams that a peer reset before we looked at them; more end the connection (CVE-2023-44487).
    pub pending_resets: usize,
    /// Streams that we may have to reset for errors of the peer in the life of a connection; more end it.
    pub error_resets: usize,
    /// Streams that a client gave up within a second, or whose head was malformed in a way that `h2` does not mind, less
    /// those that it let finish; more end the connection. It bounds
    /// what a client can make us send to endpoints and take back, which `pending_resets` does not.
    pub early_resets: u32,
    /// Whether clients may use extended CONNECT (RFC 8441). The handler sees it as the extension
    /// [`h2::ext::Protocol`] of a `CONNECT` request.
    pub extended_connect: bool,
}

impl Limits {
    const CLIENTS: Self = Self {
        streams: 256,
        stream_window: 256 << 10,
        connection_window: 4 << 20,
        header_list: 64 << 10,
        frame: 32 << 10,
        send_buffer: 64 << 10,
        remembered_resets: 256,
        pending_resets: 20,
        error_resets: 1024,
        early_resets: 200,
        extended_connect: false,
    };

    /// Those for connections to endpoints, which many clients share: a wider connection window, not to be filled by a few
    /// that do not read, and patience with what still comes for the requests that clients gave up.
    #[must_use]
    pub const fn upstream() -> Self {
        Self { connection_window: 16 << 20, remembered_resets: 1024, error_resets: 1 << 16, ..Self::CLIENTS }
    }

    pub(super) fn server(&self) -> h2::server::Builder {
        let mut builder = h2::server::Builder::new();
        builder
            .max_concurrent_streams(self.streams)
            .initial_window_size(self.stream_window)
            .initial_connection_window_size(self.connection_window)
            .max_header_list_size(self.header_list)
            .max_frame_size(self.frame)
            .max_send_buffer_size(self.send_buffer)
            .max_concurrent_reset_streams(self.remembered_resets)
            .max_pending_accept_reset_streams(self.pending_resets)
            .max_local_error_reset_streams(Some(self.error_resets));
        if self.extended_connect {
            builder.enable_connect_protocol();
        }
        builder
    }

    pub(super) fn client(&self) -> h2::client::Builder {
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .initial_max_send_streams(UNTIL_SETTINGS)
            .initial_window_size(self.stream_window)
            .initial_connection_window_size(self.connection_window)
            .max_header_list_size(self.header_list)
            .max_frame_size(self.frame)
            .max_send_buffer_size(self.send_buffer)
            .max_concurrent_reset_streams(self.remembered_resets)
            .max_pending_accept_reset_streams(self.pending_resets)
            .max_local_error_reset_streams(Some(self.error_resets));
        builder
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::CLIENTS
    }
}
