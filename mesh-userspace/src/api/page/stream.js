// The wire: the live stream, which comes back by itself, and questions that are asked again and again while they matter.
const stream = (() => {
  // A daemon that hangs keeps its connections: so long without news is as good as none.
  const SILENCE = 30000;
  const FIRST_PAUSE = 500;
  const LONGEST_PAUSE = 5000;
  let source = null;
  let timer = null;
  let pause = FIRST_PAUSE;
  let heard = 0;
  const link = { state: "connecting", since: Date.now(), detail: "" };

  // Paths are relative: the page may be behind a proxy that puts something in front.
  const open = (on) => {
    close();
    source = new EventSource("v1/watch/live");
    const hear = (take) => (event) => {
      take(JSON.parse(event.data));
      pause = FIRST_PAUSE;
      heard = Date.now();
      if (link.state !== "live") turn("live", "");
      on.news();
    };
    source.addEventListener("snapshot", hear(store.snapshot));
    source.addEventListener("delta", hear(store.delta));
    source.onerror = () => {
      const refused = source.readyState === EventSource.CLOSED;
      lose(refused ? "the daemon has no place for another viewer" : "the daemon does not answer");
    };
    const lose = (why) => {
      close();
      turn("down", why);
      on.news();
      // The browser would try again as well, but not after an answer that says no.
      timer = setTimeout(() => open(on), pause);
      pause = Math.min(pause * 2, LONGEST_PAUSE);
    };
    heard = Date.now();
    timer = setInterval(() => {
      if (Date.now() - heard > SILENCE) lose("the daemon says nothing");
      else on.news();
    }, 1000);
  };
  const close = () => {
    source?.close();
    source = null;
    clearTimeout(timer);
  };
  const turn = (state, detail) => Object.assign(link, { state, detail, since: Date.now() });

  // A tab that nobody sees asks for nothing: a daemon that nobody watches has nothing to do.
  const start = (on) => {
    document.addEventListener("visibilitychange", () => (document.hidden ? close() : open(on)));
    if (!document.hidden) open(on);
  };

  // Asks for `path()` now and every `seconds`, and hands over `{data}` or `{missing}`, until the function that it returns
  // is called.
  const poll = (path, seconds, take) => {
    const ended = new AbortController();
    let next = null;
    let turn = 0;
    const ask = async () => {
      const mine = (turn += 1);
      clearTimeout(next);
      if (!document.hidden) {
        try {
          const response = await fetch(path(), { signal: ended.signal, cache: "no-store" });
          const said = await response.json().catch(() => null);
          // Asked again meanwhile: that answer is the one to wait for.
          if (mine !== turn) return;
          take(response.ok ? { data: said } : { missing: response.status, why: said?.error?.message });
        } catch {
          // The daemon is away; the live stream says so, and this is asked again.
        }
      }
      if (mine === turn && !ended.signal.aborted) next = setTimeout(ask, seconds * 1000);
    };
    ask();
    const stop = () => {
      ended.abort();
      clearTimeout(next);
    };
    return Object.assign(stop, { again: ask });
  };

  return { link, start, poll, silent: () => Date.now() - heard };
})();
