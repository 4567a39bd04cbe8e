// Numbers for people. What is not known is a dash, never a zero.
const format = (() => {
  const NOTHING = "–";
  const known = (value) => value !== null && value !== undefined;
  const digits = (value) => (value >= 100 ? 0 : value >= 10 ? 1 : 2);
  const scaled = (value, step, units) => {
    let at = 0;
    while (value >= step && at < units.length - 1) {
      value /= step;
      at += 1;
    }
    return [value, units[at]];
  };
  const trimmed = (value) => String(Number(value.toFixed(digits(value))));

  // Exact up to 9,999.
  const count = (value) => {
    if (!known(value)) return NOTHING;
    if (value < 10000) return value.toLocaleString("en");
    const [scale, unit] = scaled(value, 1000, ["", "k", "M", "G", "T"]);
    return trimmed(scale) + unit;
  };
  const exact = (value) => (known(value) ? value.toLocaleString("en") : NOTHING);
  const rate = (value) => {
    if (!known(value)) return NOTHING;
    const [scale, unit] = scaled(value, 1000, ["", "k", "M", "G"]);
    return trimmed(Number(scale.toFixed(1))) + unit;
  };
  const bytes = (value) => {
    if (!known(value)) return NOTHING;
    const [scale, unit] = scaled(value, 1024, [" B", " KiB", " MiB", " GiB", " TiB", " PiB"]);
    return trimmed(scale) + unit;
  };
  const ms = (value) => {
    if (!known(value)) return NOTHING;
    if (value < 1) return `${Math.round(value * 1000)} µs`;
    if (value < 1000) return `${trimmed(value)} ms`;
    return value < 60000 ? `${trimmed(value / 1000)} s` : age(value);
  };
  // How long something lasts, in the largest unit of which there are two.
  const age = (value) => {
    if (!known(value)) return NOTHING;
    const seconds = Math.max(0, Math.floor(value / 1000));
    const [length, unit] = [[86400, "d"], [3600, "h"], [60, "m"]].find(([length]) => seconds >= 2 * length) ?? [1, "s"];
    return Math.floor(seconds / length) + unit;
  };
  // Of a histogram: more digits would be invented.
  const coarse = (value) => ms(value >= 1 && value < 1000 ? Number(value.toFixed(value < 10 ? 1 : 0)) : value);
  const percentiles = (value) => (value ? [value.p50_ms, value.p90_ms, value.p99_ms].map(coarse).join(" · ") : NOTHING);
  const clock = (time) => (known(time) ? time.slice(11, 23) : NOTHING);
  const word = (text) => (known(text) ? text.replaceAll("_", " ") : NOTHING);

  return { NOTHING, count, exact, rate, bytes, ms, age, percentiles, clock, word };
})();
