// The page as a whole: which view is shown, what is on top of all of them, and the keyboard.
const app = (() => {
  const { h, text, attr, tint, flag, find } = dom;
  const NAV = [["services", "Services"], ["endpoints", "Endpoints"], ["connections", "Connections"], ["traces", "Traces"], ["errors", "Errors"], ["status", "Status"]];
  let view = null;
  let words = [];
  let drawing = false;

  // However much arrives at once, it is drawn once, with the browser's next picture.
  const refresh = () => {
    if (drawing) return;
    drawing = true;
    requestAnimationFrame(() => {
      drawing = false;
      link();
      alerts();
      totals();
      view?.update();
    });
  };

  const matches = (text) => words.every((word) => text.includes(word));

  const link = () => {
    const { state, detail, since } = stream.link;
    const silent = stream.silent();
    const late = state === "live" && silent > 5000;
    text(find("link"), late ? `no news for ${format.age(silent)}` : state === "down" ? "reconnecting" : state);
    tint(find("link"), late ? "warn" : { live: "good", down: "bad", connecting: "note" }[state]);
    flag(document.body, "stale", state === "down" || late);
    const { status } = store.state;
    text(find("node"), status?.node ?? "");
    const gone = find("alerts").querySelector(".gone");
    if (state === "down" && !gone) find("alerts").prepend(h("p", { class: "gone", "data-tone": "bad" }, `No connection: ${detail}. What is shown is from ${new Date(since).toLocaleTimeString("en-GB")}; trying again.`));
    if (state !== "down") gone?.remove();
  };

  // What an operator must not miss, on every view.
  const alerts = () => {
    const { status, ready, totals } = store.state;
    const lines = [];
    if (status?.bypass) lines.push(["bad", "Bypass is on: every connection passes untouched."]);
    if (status?.interception_ok === false && !status.bypass) lines.push(["bad", "Interception does not work.", "#/status"]);
    if (status?.config.error) lines.push(["warn", "The last configuration was refused; the one before is in force.", "#/status"]);
    if (ready && !ready.ready && !status?.bypass) lines.push(["warn", `Not ready: ${ready.reasons.join("; ")}`]);
    if (totals?.open_circuits > 0) lines.push(["bad", `${totals.open_circuits === 1 ? "One circuit is" : `${format.count(totals.open_circuits)} circuits are`} open.`, "#/endpoints"]);
    const list = (find("alerts").querySelector("ul") ?? find("alerts").appendChild(h("ul")));
    dom.each(list, lines, () => h("li", {}, h("a")), (line, [tone, said, href]) => {
      tint(line, tone);
      text(line.firstChild, said);
      attr(line.firstChild, "href", href);
    });
  };

  const spark = draw.spark();
  const totals = () => {
    const { totals } = store.state;
    const element = find("totals");
    if (!element.firstChild) element.append(h("div", { class: "tiles" }), spark.element);
    if (!totals) return;
    const { per, growing } = parts;
    const some = (name, field, tone) => [name, format.count(totals[field]), "endpoints", totals[field] ? tone : null];
    parts.tiles(element.firstChild, [
      per(totals, "Requests/s", "requests_per_s"),
      per(totals, "Connections/s", "connections_per_s"),
      per(totals, "Sent/s", "sent_bytes_per_s", format.bytes),
      per(totals, "Received/s", "received_bytes_per_s", format.bytes),
      per(totals, "Connected", "active_connections", format.count),
      growing(totals, "5xx", "responses_5xx"),
      growing(totals, "Failures", "connect_failures"),
      some("Unhealthy", "unhealthy", "bad"),
      some("Open circuits", "open_circuits", "bad"),
      some("Draining", "draining", "note"),
    ]);
    spark.update(store.past(null));
  };

  // Where the address points: `#/VIEW/NAME/NAME`.
  const route = () => {
    const names = location.hash.replace(/^#\//, "").split("/").map((name) => {
      try {
        return decodeURIComponent(name);
      } catch {
        return name;
      }
    });
    const [first, ...rest] = names[0] ? names : ["services"];
    const places = new Map([
      ["services", [services.overview, services.one, services.endpoint][Math.min(rest.length, 2)]],
      ["endpoints", services.every],
      ["connections", views.connections],
      ["traces", rest.length ? views.trace : views.traces],
      ["errors", views.errors],
      ["status", views.status],
    ]);
    if (!places.has(first)) return location.replace("#/services");
    view?.stop?.();
    view = places.get(first)(...rest);
    for (const link of find("nav").children) attr(link, "aria-current", link.dataset.view === first ? "page" : null);
    document.title = `${view.title} · mesh`;
    find("main").replaceChildren(view.element);
    scrollTo(0, 0);
    refresh();
  };

  const THEMES = { auto: "◐", light: "☀", dark: "☾" };
  const theme = (name) => {
    attr(document.documentElement, "data-theme", name);
    text(find("theme"), THEMES[name]);
    attr(find("theme"), "title", `Colours: ${name === "auto" ? "as the system" : name} (t)`);
    attr(find("theme"), "aria-label", `Colours: ${name === "auto" ? "as the system" : name}`);
  };
  // A browser may forbid to remember.
  const remembered = () => {
    try {
      return localStorage.getItem("mesh-theme");
    } catch {
      return null;
    }
  };
  const next = () => {
    const names = Object.keys(THEMES);
    const name = names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length];
    theme(name);
    try {
      localStorage.setItem("mesh-theme", name);
    } catch {
      // It holds until the page is loaded again.
    }
  };

  const filter = (value) => {
    words = value.toLowerCase().split(/\s+/).filter(Boolean);
    refresh();
  };
  const press = (event) => {
    const box = find("filter");
    if (event.ctrlKey || event.metaKey || event.altKey || find("help").open) return;
    const typing = event.target === box;
    if (event.key === "Escape") {
      if (box.value) filter((box.value = ""));
      else if (typing) box.blur();
      else if (view?.up) location.hash = view.up;
    } else if (typing ? ["ArrowDown", "ArrowUp", "PageDown", "PageUp"].includes(event.key) && view?.list?.press(event) : view?.list?.press(event)) {
      // The list took it.
    } else if (typing) {
      if (event.key !== "Enter") return;
      view?.list?.press(new KeyboardEvent("keydown", { key: "Home" }));
    } else if (event.key === "/") box.focus();
    else if (event.key === "?") find("help").showModal();
    else if (event.key === "t") next();
    else if (NAV[Number(event.key) - 1]) location.hash = `#/${NAV[Number(event.key) - 1][0]}`;
    else return;
    event.preventDefault();
  };

  const start = () => {
    find("nav").append(...NAV.map(([name, title], at) => h("a", { href: `#/${name}`, "data-view": name, title: `${title} (${at + 1})` }, title)));
    theme(Object.hasOwn(THEMES, remembered()) ? remembered() : "auto");
    find("theme").addEventListener("click", next);
    find("keys").addEventListener("click", () => find("help").showModal());
    find("filter").addEventListener("input", (event) => filter(event.target.value));
    document.querySelector(".skip").addEventListener("click", (event) => {
      // The address says which view is shown.
      event.preventDefault();
      find("main").focus();
    });
    addEventListener("keydown", press);
    addEventListener("hashchange", route);
    const scrolled = () => requestAnimationFrame(() => view?.list?.draw());
    addEventListener("scroll", scrolled, { passive: true });
    addEventListener("resize", () => refresh());
    route();
    stream.start({ news: refresh });
  };

  return { refresh, matches, start, UNMATCHED: "Nothing matches the filter." };
})();

app.start();
