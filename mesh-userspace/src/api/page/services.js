// Services, one of them, and one of its endpoints: what the live stream says, from far to near.
const services = (() => {
  const { h, attr, tint, text } = dom;
  const { path, toService, toEndpoint, tone, words, worst, both, rates, per, total, growing } = parts;
  const { count, rate, bytes, word, percentiles, NOTHING } = format;
  // So many endpoints of a service are shown as squares, and so many at the end of curves.
  const CELLS = 40;
  const CURVES = 14;

  // What a service can be found by: its own words and the addresses of its endpoints, put together anew when they change.
  const found = new Map();
  let foundAt = -1;
  const wordsOf = (service) => {
    if (foundAt !== store.generation()) found.clear();
    foundAt = store.generation();
    let known = found.get(service.name);
    if (known === undefined) {
      const { name, addresses, protocol, policy } = service;
      known = [name, ...addresses, protocol, policy, ...store.of(name).map((endpoint) => endpoint.address)].join(" ").toLowerCase();
      found.set(name, known);
    }
    return `${known} ${worst(service)[1]}`;
  };
  const matching = (endpoints) => endpoints.filter((e) => app.matches(`${e.service} ${e.address} ${e.zone} ${e.node} ${e.health} ${words(e)}`.toLowerCase()));

  const pace = (row) => `${rate(store.pace(row))} ${row.requests_total || row.responses_total ? "req" : "conn"}/s`;
  const busiest = (a, b) => (store.pace(b) ?? 0) - (store.pace(a) ?? 0);
  const worstFirst = (a, b) => store.severity(a) - store.severity(b);
  const latency = (row) => row.request_percentiles ?? row.connect_percentiles;
  const percentilesOf = (row, what) => [`${what} p50 · p90 · p99`, percentiles(row[`${what.toLowerCase().slice(0, -1)}_percentiles`])];

  const overview = () => {
    const flow = draw.flow("Services by what is asked of them now");
    const top = parts.card("Busiest services", flow.element);
    const all = list.create({
      name: "services",
      label: "Services",
      sort: { column: "name", falls: false },
      empty: "No services yet: they come from the configuration, the registry, etcd, Kubernetes or the DNS.",
      key: (row) => row.name,
      href: (row) => toService(row.name),
      tone: (row) => worst(row)[0],
      columns: [
        { name: "name", title: "Service", by: (row) => row.name, update: (cell, row) => parts.named(cell, row.name, toService(row.name), worst(row)) },
        parts.pair(
          "vip", "Addresses", (row) => row.addresses[0] ?? "",
          ({ addresses: [first, ...more] }) => (first ? first + (more.length ? ` +${more.length}` : "") : "no address"),
          (row) => `${row.protocol} · ${word(row.policy)}`,
          { exact: (row) => row.addresses.join("\n") },
        ),
        {
          name: "cells", title: "Endpoints", falls: true,
          by: ({ endpoints: { open, total, healthy } }) => open * 1e6 + (total - healthy) * 1e3 + total,
          update: (cell, row) => {
            const shown = [...store.of(row.name)].sort(worstFirst).slice(0, CELLS);
            draw.cells(cell, shown.map((e) => [tone(e), `${e.address}: ${words(e)}, ${pace(e)}`, toEndpoint(e)]), row.endpoints.total - shown.length);
          },
        },
        {
          ...rates.requests,
          update: (cell, row) => {
            if (!cell.spark) {
              cell.spark = draw.spark();
              cell.append(h("span"), cell.spark.element);
            }
            text(cell.firstChild, row.requests_total > 0 ? rates.requests.show(row) : NOTHING);
            cell.spark.update(store.past(row.name));
          },
        },
        rates.connections,
        rates.traffic,
        parts.pair("latency", "p50 · p90 · p99", (row) => latency(row)?.p99_ms, (row) => percentiles(latency(row)), (row) => (row.request_percentiles ? "requests" : row.connect_percentiles ? "connects" : ""), { falls: true }),
        rates.failures,
      ],
    });
    return {
      title: "Services",
      element: h("div", {}, top, all.element),
      list: all,
      update: () => {
        const rows = [...store.state.services.values()].filter((row) => app.matches(wordsOf(row)));
        const busy = rows.filter((row) => store.pace(row) > 0 || worst(row)[0] === "bad");
        busy.sort((a, b) => busiest(a, b) || store.inOrder(a.name, b.name));
        top.hidden = rows.length === 0;
        const ends = (busy.length ? busy : rows).slice(0, 8).map((row) => ({
          name: row.name, tone: worst(row)[0] === "note" ? "good" : worst(row)[0], rate: store.pace(row), href: toService(row.name),
          note: `${pace(row)} · ↓ ${bytes(row.received_bytes_per_s)}/s`,
        }));
        flow.update(store.state.status?.node || "this node", `${count(store.state.services.size)} services`, ends);
        all.set(rows, store.state.services.size ? app.UNMATCHED : undefined);
      },
    };
  };

  // A view of one thing, which may not be there: `update` is called with its row.
  const detail = (what, find, { names, body, ...more }, update) => {
    const absent = h("p", { class: "nothing" }, `${what} is not there (any more).`);
    return {
      ...more,
      element: h("div", {}, parts.crumbs(...names), absent, body),
      update: () => {
        const row = find();
        absent.hidden = Boolean(row) || !store.state.status;
        body.hidden = !row;
        if (row) update(row);
      },
    };
  };
  const byReason = (counts) => Object.entries(counts).filter(([, n]) => n > 0).map(([reason, n]) => `${word(reason)} ${count(n)}`).join(", ");

  const one = (name) => {
    const flow = draw.flow(`Endpoints of ${name} by what is asked of them now`);
    const flowCard = parts.card("From this node to its endpoints", flow.element);
    const tiles = h("div", { class: "tiles" });
    const problem = h("p", { class: "problem" });
    const endpoints = parts.endpoints("of-service", false);
    const frame = {
      title: name,
      up: path("services"),
      names: [["Services", path("services")], [name]],
      body: h("div", {}, problem, tiles, flowCard, endpoints.element),
      list: endpoints,
    };
    return detail(`The service ${name}`, () => store.state.services.get(name), frame, (row) => {
      const [shade, why] = worst(row);
      text(problem, why && [why, row.not_intercepted_reason].filter(Boolean).join(": "));
      problem.hidden = !problem.textContent;
      tint(problem, shade);
      const { total: all, healthy, open, draining } = row.endpoints;
      const refused = byReason({ ...row.connects_refused_total, ...row.requests_rejected_total });
      parts.tiles(tiles, [
        per(row, "Requests/s", "requests_per_s"),
        total(row, "Requests", "requests", `requests, ${row.active_requests} on their way`),
        per(row, "Connections/s", "connections_per_s"),
        total(row, "Connections", "connections", `connections, ${row.active_connections} open`),
        total(row, "Sent", "sent_bytes", "bytes", bytes),
        total(row, "Received", "received_bytes", "bytes", bytes),
        percentilesOf(row, "Requests"),
        percentilesOf(row, "Connects"),
        growing(row, "5xx", "responses_5xx"),
        growing(row, "Connect failures", "connect_failures"),
        ["Endpoints", `${healthy} of ${all} healthy`, null, healthy < all ? "bad" : null],
        ["Circuits", open ? `${open} of ${all} open` : word(row.circuit), `${draining} draining`, open ? "bad" : null],
        ["Refused", refused || (row.connects_refused_total || row.requests_total > 0 ? "none" : NOTHING), null, refused ? "warn" : null],
        ["Addresses", row.addresses.join(" ") || "none"],
        ["Policy", `${row.protocol}, ${word(row.policy)}`],
      ]);
      const known = store.of(name);
      const ends = [...known].sort((a, b) => busiest(a, b) || worstFirst(a, b)).slice(0, CURVES);
      ends.sort((a, b) => store.inOrder(a.address, b.address));
      flow.update(name, row.addresses[0] ?? "no address", ends.map((e) => ({
        name: e.address, tone: tone(e), rate: store.pace(e), href: toEndpoint(e),
        note: store.standing(e) === "good" ? `${pace(e)} · ${count(e.active_connections)} open` : words(e),
      })));
      flowCard.hidden = ends.length === 0;
      const tooMany = `${count(all)} endpoints are too many to follow here: mesh endpoints ${name} lists them.`;
      endpoints.set(matching(known), known.length ? app.UNMATCHED : all ? tooMany : undefined);
    });
  };

  const endpoint = (service, address) => {
    const tiles = h("div", { class: "tiles" });
    const connections = parts.connections();
    const errors = parts.errors();
    const query = `service=${encodeURIComponent(service)}&endpoint=${encodeURIComponent(address)}`;
    let told = {};
    let logs = {};
    const compare = parts.compared();
    const polls = [
      stream.poll(() => `v1/connections?${query}&sort=received&limit=50`, 2, (answer) => app.refresh((told = answer))),
      stream.poll(() => `v1/logs?${query}&limit=200`, 3, (answer) => app.refresh((logs = answer))),
    ];
    const frame = {
      title: address,
      up: toService(service),
      names: [["Services", path("services")], [service, toService(service)], [address]],
      body: h("div", {}, tiles, h("h2", {}, "Connections with most bytes"), connections.element, h("h2", {}, "Recent errors"), errors.element),
      list: connections,
      stop: () => polls.forEach((stop) => stop()),
    };
    const find = () => store.state.endpoints.get(store.key({ service, address }));
    return detail(`The endpoint ${address} of ${service}`, find, frame, (row) => {
      const failures = byReason(row.connect_failures);
      parts.tiles(tiles, [
        ["State", words(row), null, tone(row)],
        ["Health", row.health, null, row.health === "unhealthy" ? "bad" : null],
        ["Circuit", word(row.circuit), null, row.circuit === "open" ? "bad" : null],
        ["Weight", count(row.weight)],
        per(row, "Requests/s", "requests_per_s"),
        total(row, "Responses", "responses", `responses, ${row.active_requests} requests on their way`),
        growing(row, "5xx", "responses_5xx"),
        per(row, "Connections/s", "connections_per_s"),
        total(row, "Connections", "connections", `connections, ${row.active_connections} open`),
        total(row, "Sent", "sent_bytes", "bytes", bytes),
        total(row, "Received", "received_bytes", "bytes", bytes),
        per(row, "Latency", "latency_ewma_ms", format.ms),
        percentilesOf(row, "Connects"),
        ["Connect failures", failures || "none", null, row.connect_failures_per_s > 0 ? "bad" : null],
        total(row, "Sent again", "retransmits", "segments"),
        ["Place", [row.node, row.zone, row.region].filter(Boolean).join(", ") || "not known"],
      ]);
      compare(told.data ?? []);
      parts.listed(connections, "Connections", told);
      parts.listed(errors, "Request logs", logs, parts.failed(logs.data));
    });
  };

  const every = () => {
    const all = parts.endpoints("all", true);
    const left = h("p", { class: "problem", "data-tone": "note" });
    return {
      title: "Endpoints",
      element: h("div", {}, left, all.element),
      list: all,
      update: () => {
        text(left, `${count(store.state.leftOut)} more endpoints are not shown: too many to follow.`);
        left.hidden = !store.state.leftOut;
        const rows = [...store.state.endpoints.values()];
        all.set(matching(rows), rows.length ? app.UNMATCHED : undefined);
      },
    };
  };

  return { overview, one, endpoint, every };
})();
