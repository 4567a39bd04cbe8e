// What several views are made of.
const parts = (() => {
  const { h, text, attr, tint, flag, each } = dom;
  const { count, exact, rate, bytes, ms, word, percentiles, NOTHING } = format;

  const path = (...names) => `#/${names.map(encodeURIComponent).join("/")}`;
  const toService = (service) => path("services", service);
  const toEndpoint = (endpoint) => path("services", endpoint.service, endpoint.address);

  const STANDINGS = {
    open: ["bad", "circuit open"],
    unhealthy: ["bad", "unhealthy"],
    probing: ["warn", "circuit half open"],
    draining: ["note", "draining"],
    idle: ["note", "weight 0"],
    good: ["good", "in use"],
  };
  const tone = (endpoint) => STANDINGS[store.standing(endpoint)][0];
  const words = (endpoint) => STANDINGS[store.standing(endpoint)][1];

  // The worst that is true of a service, and how to say it.
  const worst = ({ circuit, intercepted, addresses, endpoints: { total, healthy, open, draining } }) => {
    const many = (tone, n, word) => [tone, `${n} of ${total} ${word}`];
    if (circuit === "open") return ["bad", "circuit open"];
    // Without an address there is nothing to intercept: it is reached by the proxy, or by routes.
    if (!intercepted && addresses.length) return ["warn", "not intercepted"];
    if (!total) return ["warn", "no endpoints"];
    if (open) return many("bad", open, "open");
    if (healthy < total) return many("bad", total - healthy, "unhealthy");
    if (circuit === "half_open") return ["warn", "half open"];
    return draining ? many("note", draining, "draining") : ["good", ""];
  };

  // A link with a coloured word behind it.
  const named = (element, name, href, [tone, word]) => {
    if (!element.firstChild) element.append(h("i", { class: "dot" }), h("a", { tabindex: -1 }), h("b", { class: "badge" }));
    const [dot, link, badge] = element.children;
    tint(dot, tone);
    attr(link, "href", href);
    text(link, name);
    text(badge, word);
    tint(badge, tone);
  };
  const both = (element, first, second) => {
    if (!element.firstChild) element.append(h("span"), h("small"));
    text(element.firstChild, first);
    text(element.lastChild, second);
  };

  // Numbers with names: `items` are [name, value, title, tone].
  const tiles = (element, items) =>
    each(element, items, () => h("div", { class: "tile" }, h("span"), h("b")), (tile, [name, value, title, tone]) => {
      text(tile.firstChild, name);
      text(tile.lastChild, value);
      attr(tile.lastChild, "data-field", name);
      attr(tile, "title", title);
      flag(tile, "wide", value.length > 14 || name.length > 18);
      tint(tile, tone);
    });
  // Those of a row: a rate, a total with what else there is to say of it, and a total that ought not to grow.
  const per = (row, name, field, show = rate) => [name, show(row[field])];
  const total = (row, name, field, also, show = count) => [name, show(row[`${field}_total`]), `${exact(row[`${field}_total`])} ${also}`];
  const growing = (row, name, field) => [name, count(row[`${field}_total`]), null, row[`${field}_per_s`] > 0 ? "bad" : null];

  // A small table that is as long as it is. `columns`: [title, row => text, row => tone].
  const table = (label, columns) => {
    const head = h("tr", {}, ...columns.map(([title]) => h("th", { scope: "col" }, title)));
    const body = h("tbody");
    const element = h("div", { class: "scroll" }, h("table", { "aria-label": label }, h("thead", {}, head), body));
    const update = (rows) =>
      each(body, rows, () => h("tr", {}, ...columns.map(() => h("td"))), (line, row) =>
        columns.forEach(([, show, tone], at) => {
          text(line.children[at], show(row));
          tint(line.children[at], tone?.(row));
        }),
      );
    return { element, update };
  };

  // Columns of lists: a word, an amount (large ones first), two lines.
  const plain = (name, title, by, more) => ({ name, title, by, show: by, ...more });
  const amount = (name, title, field, show = count, more) => ({ name, title, by: (row) => row[field], falls: true, show: (row) => show(row[field]), ...more });
  const pair = (name, title, by, first, second, more) => ({ name, title, by, update: (cell, row) => both(cell, first(row), second(row)), ...more });

  const failing = (row) => (row.responses_5xx_per_s ?? 0) + (row.connect_failures_per_s ?? 0);
  const failures = (row) => row.responses_5xx_total + row.connect_failures_total;
  const large = { falls: true };
  const rates = {
    requests: amount("requests", "Requests/s", "requests_per_s", rate),
    connections: pair("connections", "Conn/s", (row) => row.connections_per_s, (row) => rate(row.connections_per_s), (row) => `${count(row.active_connections)} open`, large),
    traffic: pair("traffic", "Bytes/s", (row) => row.sent_bytes_per_s + row.received_bytes_per_s, (row) => `↑ ${bytes(row.sent_bytes_per_s)}`, (row) => `↓ ${bytes(row.received_bytes_per_s)}`, large),
    failures: pair("failures", "Failures", failures, (row) => `${rate(failing(row))}/s`, (row) => `${count(failures(row))} ever`, { ...large, tone: (row) => (failing(row) > 0 ? "bad" : null) }),
  };

  const endpoints = (name, withService) =>
    list.create({
      name: `endpoints ${name}`,
      label: "Endpoints",
      sort: { column: "standing", falls: false },
      empty: "No endpoints.",
      key: store.key,
      href: toEndpoint,
      tone,
      columns: [
        {
          name: "standing", title: "Endpoint", by: store.severity,
          update: (cell, row) => named(cell, row.address, toEndpoint(row), [tone(row), store.standing(row) === "good" ? "" : words(row)]),
        },
        ...(withService ? [plain("service", "Service", (row) => row.service)] : []),
        pair("place", "Weight", (row) => row.weight, (row) => count(row.weight), (row) => row.zone ?? row.node ?? "", large),
        plain("health", "Health", (row) => row.health),
        rates.requests,
        rates.connections,
        rates.traffic,
        { name: "latency", title: "Connect p50 · p90 · p99", falls: true, by: (row) => row.connect_percentiles?.p99_ms, show: (row) => percentiles(row.connect_percentiles) },
        rates.failures,
      ],
    });

  const where = (row) => row.client.pod ?? row.client.cgroup ?? "gone";
  const keyOf = (row) => `${row.client.netns} ${row.client.address} ${row.endpoint} ${row.attempt}`;
  // Bytes so far, and how many a second lately.
  const carried = (title, name) => {
    const field = `${name}_bytes`;
    const lately = (row) => (row.rates ? `${bytes(row.rates[field])}/s` : NOTHING);
    return pair(name, title, (row) => row[field], (row) => bytes(row[field]), lately, { ...large, exact: (row) => `${exact(row[field])} bytes` });
  };
  // Says of each connection of an answer what it carried a second since the answer before.
  const compared = () => {
    const NONE = { sent_bytes: 0, received_bytes: 0 };
    let [last, at, was] = [null, 0, new Map()];
    return (rows) => {
      if (rows === last || !rows.length) return;
      const now = performance.now();
      const seconds = (now - at) / 1000;
      for (const row of rows) {
        const before = row.age_ms < seconds * 1000 ? NONE : was.get(keyOf(row));
        const rate = (field) => Math.max(0, row[field] - before[field]) / seconds;
        row.rates = at && before ? { sent_bytes: rate("sent_bytes"), received_bytes: rate("received_bytes") } : null;
      }
      [last, at, was] = [rows, now, new Map(rows.map((row) => [keyOf(row), row]))];
    };
  };
  const connections = (sorted) =>
    list.create({
      name: "connections",
      label: "Connections",
      sort: { column: "received", falls: true },
      empty: "No open connections.",
      sorted,
      key: keyOf,
      columns: [
        pair("client", "Client", (row) => row.client.command ?? "unknown", (row) => row.client.command ?? "unknown", (row) => `pid ${row.client.pid ?? NOTHING}`),
        pair("where", "Pod or cgroup", where, where, (row) => `netns ${row.client.netns ?? NOTHING}`, { exact: (row) => row.client.cgroup }),
        pair("to", "Service and endpoint", (row) => row.service ?? "", (row) => row.service ?? "removed", (row) => `${row.client.address ?? "unbound"} → ${row.endpoint}`),
        carried("Sent", "sent"),
        carried("Received", "received"),
        amount("rtt", "RTT", "rtt_us", (us) => ms(us === null ? null : us / 1000)),
        amount("age", "Age", "age_ms", format.age),
        pair("state", "State", (row) => row.state, (row) => word(row.state), (row) => row.path + (row.retransmits ? `, ${row.retransmits} sent again` : "")),
      ],
    });

  // Where a request went, and when, and how long that took: the same of logs and of traces.
  const went = pair("to", "Service and endpoint", (row) => row.service ?? "", (row) => row.service ?? "no service", (row) => row.endpoint ?? "answered by mesh");
  const at = (field, title) => amount(field, title, field, format.clock, { exact: (row) => row[field] });
  const attempts = amount("attempts", "Attempts", "attempts");

  const errors = () =>
    list.create({
      name: "errors",
      label: "Errors",
      sort: { column: "time", falls: true },
      empty: "No errors.",
      key: (row) => [row.time, row.client, row.method, row.path, row.duration_ms, row.trace_id].join(" "),
      href: (row) => row.trace_id && path("traces", row.trace_id),
      columns: [
        at("time", "Time"),
        pair("status", "Status", (row) => row.status ?? 0, (row) => String(row.status ?? NOTHING), (row) => word(row.reason ?? ""), { ...large, tone: (row) => (row.status < 500 && row.status !== null ? "warn" : "bad") }),
        pair("what", "Request", (row) => row.path ?? "", (row) => (row.method ? `${row.method} ${row.path}` : "connection"), (row) => `from ${row.client}`, { exact: (row) => row.path }),
        went,
        amount("took", "Took", "duration_ms", ms),
        attempts,
      ],
    });
  // What of the request log counts as an error: the server's status, something that broke it off, no answer.
  const failed = (rows = []) => rows.filter((row) => row.reason || row.status >= 500 || (row.method && row.status === null));

  // Rows that were asked for, as far as the filter lets them through; or why there are none.
  const listed = (list, what, told, rows = told.data ?? []) => {
    const { missing, why } = told;
    const absent = missing === 404 || missing === 501 ? `${what} are not available on this daemon.` : (why ?? `The daemon answered ${missing}.`);
    list.set(rows.filter((row) => app.matches(JSON.stringify(row).toLowerCase())), told.data ? undefined : missing ? absent : "Asking…");
  };

  const card = (title, ...content) => h("section", { class: "card" }, h("h2", {}, title), ...content);
  // Where a view is: [name, address] each, the last without.
  const crumbs = (...names) =>
    h("nav", { class: "crumbs", "aria-label": "Where this is" }, ...names.flatMap(([name, href]) => (href ? [h("a", { href }, name), " / "] : [h("b", {}, name)])));

  return { path, toService, toEndpoint, tone, words, worst, named, both, tiles, per, total, growing, table, plain, amount, pair, rates, endpoints, connections, compared, errors, failed, listed, went, at, attempts, card, crumbs };
})();
