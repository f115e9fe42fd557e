"""The script of the page: it draws the plots, in the colours of the theme."""

__all__ = ["SCRIPT"]

# The plots lie beside their places as JSON, in light colours. DARK maps these to dark ones. What
# of a layout is other on a narrow screen is in its `meta.narrow`.
SCRIPT = """
(() => {
  const root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width:560px)");
  let chosen = null;
  const dark = () => chosen === null ? system.matches : chosen;
  const hex = (n) => Number(n).toString(16).padStart(2, "0");
  const parts = (h) => [1, 3, 5].map((i) => parseInt(h.slice(i, i + 2), 16)).join(",");
  const colour = (text) => {
    if (Object.hasOwn(DARK, text)) return DARK[text];
    const m = /^rgba\\((\\d+),(\\d+),(\\d+),([\\d.]+)\\)$/.exec(text);
    const twin = m && DARK["#" + hex(m[1]) + hex(m[2]) + hex(m[3])];
    return twin ? `rgba(${parts(twin)},${m[4]})` : text;
  };
  const recoloured = (value) => {
    if (typeof value === "string") return colour(value);
    if (Array.isArray(value)) return value.map(recoloured);
    if (value === null || typeof value !== "object") return value;
    const pairs = Object.entries(value).map(([key, inner]) => [key, recoloured(inner)]);
    return Object.fromEntries(pairs);
  };
  const config = {displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false};
  const hidden = new WeakMap();
  const font = getComputedStyle(document.body).fontFamily;
  const draw = (place) => {
    let plot = JSON.parse(place.nextElementSibling.textContent);
    if (dark()) plot = recoloured(plot);
    plot.layout.font.family = font;
    if (narrow.matches && plot.layout.meta)
      for (const [key, value] of Object.entries(plot.layout.meta.narrow))
        plot.layout[key] = Array.isArray(value) ? value : {...plot.layout[key], ...value};
    const off = hidden.get(place.closest(".panel"));
    if (off) for (const trace of plot.data) if (off.has(trace.name)) trace.visible = false;
    return Plotly.react(place, plot.data, plot.layout, config);
  };
  const button = document.querySelector(".theme");
  const show = () => {
    root.dataset.theme = dark() ? "dark" : "light";
    button.textContent = dark() ? "Light" : "Dark";
    for (const svg of document.querySelectorAll(".mark"))
      svg.style.color = dark() ? colour(svg.dataset.colour) : svg.dataset.colour;
    return Promise.all([...document.querySelectorAll(".plot")].map(draw));
  };
  button.addEventListener("click", () => { chosen = !dark(); show(); });
  system.addEventListener("change", () => { if (chosen === null) show(); });
  narrow.addEventListener("change", show);
  document.addEventListener("click", (event) => {
    const item = event.target.closest(".legend button");
    if (!item) return;
    const panel = item.closest(".panel"), off = hidden.get(panel) || new Set();
    hidden.set(panel, off);
    if (!off.delete(item.dataset.name)) off.add(item.dataset.name);
    item.setAttribute("aria-pressed", String(!off.has(item.dataset.name)));
    panel.querySelectorAll(".plot").forEach(draw);
  });
  show().then(() => { root.dataset.drawn = "yes"; });
})();
"""
