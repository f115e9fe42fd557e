"""The style sheet of the page."""

__all__ = ["CSS"]

LIGHT = (
    "--page:#f7f8f9;--surface:#fff;--text:#1d242b;--muted:#5c6773;--line:#e4e7ea;--accent:#0072b2"
)
DARK = (
    "--page:#101419;--surface:#171c22;--text:#e4e8ec;--muted:#9aa5b1;"
    "--line:#2b333c;--accent:#5ab4ee"
)

CSS = (
    f":root{{color-scheme:light;{LIGHT}}}\n"
    f":root[data-theme=dark]{{color-scheme:dark;{DARK}}}\n"
    """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--text);line-height:1.55;font-size:16px;
font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1080px;margin:0 auto;padding:28px 20px 64px}
header{display:flex;gap:16px;align-items:flex-start;justify-content:space-between}
h1{font-size:1.65rem;line-height:1.25;margin:0;letter-spacing:-.01em;text-wrap:balance}
h2{font-size:1.2rem;margin:52px 0 14px;letter-spacing:-.005em}
h3{font-size:1rem;margin:0 0 6px}
h4{font-size:.85rem;font-weight:500;color:var(--muted);margin:0 0 2px}
p{margin:0 0 .6em}
a{color:var(--accent)}
nav{margin:14px 0 0;font-size:.9rem;display:flex;flex-wrap:wrap;gap:4px 18px}
nav a{text-decoration:none}
nav a:hover{text-decoration:underline}
.about{color:var(--muted);font-size:.9rem;margin:6px 0 0}
details.panel{padding-top:12px;padding-bottom:12px;margin-bottom:8px}
.verdict{margin-top:26px;border-left:3px solid var(--accent);padding:2px 0 2px 20px;max-width:74ch}
.verdict h2{margin:0 0 10px;font-size:.8rem;font-weight:600;letter-spacing:.06em;
color:var(--accent);text-transform:uppercase}
.verdict p:first-of-type{font-size:1.2rem;line-height:1.45}
.verdict h3{font-size:.9rem;color:var(--muted);font-weight:500;margin:16px 0 4px}
.panel{background:var(--surface);border:1px solid var(--line);border-radius:10px;
padding:18px 20px 14px;margin:0 0 16px}
.plots{display:grid;gap:14px 22px;
grid-template-columns:repeat(auto-fit,minmax(min(300px,100%),1fr))}
.plots.wide{grid-template-columns:minmax(0,1fr)}
figure{margin:0;min-width:0}
.plot{width:100%;overflow:hidden}
.caption{color:var(--muted);font-size:.9rem;margin:10px 0 0;max-width:80ch}
.legend{display:flex;flex-wrap:wrap;gap:2px 6px;margin:0 0 10px -6px}
.legend button{display:inline-flex;align-items:center;gap:7px;border:0;background:none;
color:var(--text);font:inherit;font-size:.85rem;padding:4px 6px;border-radius:6px;cursor:pointer}
.legend button:hover{background:var(--page)}
.legend button[aria-pressed=false]{opacity:.4;text-decoration:line-through}
button:focus-visible,a:focus-visible,.scroll:focus-visible,summary:focus-visible{
outline:2px solid var(--accent);outline-offset:2px}
.mark{flex:none}
.theme{flex:none;border:1px solid var(--line);background:var(--surface);color:var(--muted);
font:inherit;font-size:.8rem;border-radius:999px;padding:5px 12px;cursor:pointer}
.theme:hover{color:var(--text)}
.scroll{overflow-x:auto;margin:0 -20px;padding:0 20px}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums;min-width:100%}
th,td{text-align:right;padding:7px 10px;vertical-align:top;border-bottom:1px solid var(--line);
white-space:nowrap;font-weight:400}
thead th{color:var(--muted);font-size:.8rem;vertical-align:bottom}
th.text,td.text{text-align:left}
td.text:last-child{white-space:normal;min-width:300px;overflow-wrap:anywhere}
th:first-child,td:first-child{padding-left:0}
tbody tr:last-child>*{border-bottom:0}
td small,th small{display:block;color:var(--muted);font-size:.75rem}
details{font-size:.9rem}
summary{cursor:pointer;font-size:.95rem;color:var(--accent);padding:4px 0}
dl{display:grid;grid-template-columns:minmax(9rem,auto) 1fr;gap:6px 18px;margin:10px 0}
dt{color:var(--muted)}
dd{margin:0;overflow-wrap:anywhere}
code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.85em}
li{margin-bottom:.35em}
ul{padding-left:1.2em;margin-top:0}
@media (max-width:560px){
main{padding:20px 12px 48px}h1{font-size:1.35rem}h2{margin-top:40px}
.panel{padding:14px 12px 12px}.scroll{margin:0 -12px;padding:0 12px}
.verdict{padding-left:14px}.verdict p:first-of-type{font-size:1.08rem}
.stack,.stack tbody{display:block}.stack tr>.text{white-space:normal}
.stack thead{display:none}.stack tr{display:flex;flex-wrap:wrap;gap:2px 16px;padding:8px 0;
border-bottom:1px solid var(--line)}.stack tr>*{border:0;padding:0}
.stack tr>*::before{content:attr(data-head)" ";color:var(--muted);font-size:.75rem}
.stack small{display:inline;margin-left:.4em}.stack tr>.text:last-child{min-width:100%}
dl{grid-template-columns:minmax(0,1fr);gap:0}dd{margin-bottom:8px}}
@media print{.theme,nav{display:none}.panel{break-inside:avoid}}
"""
)
