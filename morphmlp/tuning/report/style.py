"""The page's looks, and the words that explain its numbers."""

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f6f8; color: #1f2933;
  font: 14px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 20px; }
header, section { background: #fff; border: 1px solid #e3e8ee; border-radius: 8px; padding: 18px 22px;
  margin: 0 0 16px; }
h1 { font-size: 22px; margin: 0; }
h2 { font-size: 17px; margin: 0 0 10px; }
h3 { font-size: 14px; margin: 20px 0 8px; }
p { margin: 0 0 8px; } ul { margin: 4px 0; padding-left: 20px; } li { margin: 0 0 8px; }
code { font: 12.5px ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.run, .soft { color: #5f6c7b; font-size: 12.5px; overflow-wrap: anywhere; }
.answer { font-size: 17px; font-weight: 600; border-left: 4px solid #b5462f; padding: 4px 0 4px 12px;
  margin: 12px 0; }
.facts { display: flex; flex-wrap: wrap; gap: 8px 32px; margin: 0; }
.facts dt { color: #5f6c7b; font-size: 12px; }
.facts dd { margin: 0; font-size: 17px; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; } th { text-align: left; font-weight: 600; }
.wide { overflow-x: auto; }
.points { font-size: 13px; font-variant-numeric: tabular-nums; }
.points th, .points td { padding: 3px 8px; border-bottom: 1px solid #edf0f3; vertical-align: middle; }
.points thead th { color: #5f6c7b; font-size: 12px; border-bottom: 1px solid #9fb3c0; vertical-align: bottom; }
.points .n { text-align: right; white-space: nowrap; } .points thead .n { white-space: normal; }
.points .v { white-space: nowrap; }
.points .bar { width: 166px; min-width: 166px; }
.points .bar svg { width: 100%; height: 16px; }
.points svg { display: block; }
.points .ends { display: flex; justify-content: space-between; font-weight: 400; }
.ends i { font-style: normal; }
.points .group th { background: #f4f6f8; font-size: 12px; color: #3e4c59; padding: 4px 8px; }
.plain th, .plain td { padding: 4px 12px 4px 0; vertical-align: top; border-bottom: 1px solid #edf0f3; }
.plain th { white-space: nowrap; } .plain code { margin-right: 2px; }
.plain td code { display: inline-block; max-width: 100%; }
.states { table-layout: fixed; } .states th { width: 132px; }
.states th svg { vertical-align: -2px; }
.glyphs { margin: 4px 0; } .glyphs svg { display: block; max-width: 100%; height: auto; }
.states td { overflow-wrap: anywhere; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 12px 20px; }
.panels figure { max-width: 640px; width: 100%; }
.panels .small { max-width: 490px; }
.stages { display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)); gap: 12px; }
@media (max-width: 960px) {
  main { padding: 10px; }
  header, section { padding: 14px 14px; }
  .points, .points thead th { font-size: 11px; }
  .points th, .points td { padding: 3px 2px; }
  .points .bar { width: 72px; min-width: 72px; }
}
.stages figure { max-width: 330px; }
figure { margin: 0; }
figure svg { width: 100%; height: auto; display: block; }
figcaption { font-size: 12.5px; margin: 0 0 4px; }
.legend .key { margin-right: 18px; white-space: nowrap; font-size: 12.5px; }
.key svg { vertical-align: -2px; margin-right: 5px; }
.warn { background: #fff7e6; border-left: 4px solid #c98a1b; padding: 6px 10px; font-size: 13px; }
.names { font-size: 12.5px; color: #3e4c59; overflow-wrap: anywhere; }
details { margin: 4px 0; } summary { cursor: pointer; color: #2a6f97; font-size: 13px; }
svg text { font-family: system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
@media print {
  .panels { grid-template-columns: 1fr 1fr; }
  .stages { grid-template-columns: repeat(4, 1fr); }
  body { background: #fff; font-size: 11px; } main { max-width: none; padding: 0; }
  header, section { border: 0; padding: 6px 0; } h2, h3 { break-after: avoid; }
  figure, tr, li { break-inside: avoid; } .points { font-size: 9px; } .wide { overflow: visible; }
  .points th, .points td { padding: 2px 4px; }
}
"""

HOW_TO_READ = """<section><h2>How to read this</h2>
<p><b>Intervals</b> hold two errors: the test set is a sample of videos, and another seed trains another network.
With p the mean top-1 over k seeds on n test videos the variance is p (1 - p) (1/n + θ/k), θ being the spread
between seeds; the spread of other points counts like up to four more seeds of each point. The interval is Wilson's
with as many videos as give this variance, the seeds' part widened to Student's t. Where no point has two finished
seeds, it is Wilson's of the test videos alone.</p>
<p><b>Not separable</b> means: the interval of the difference from the best (Newcombe's method) contains 0. Of many
points the best one is also the luckiest, so expect somewhat less from it in a new training. Points of which a
scheduler stopped some seeds are compared with nobody, since the seeds that go on are the lucky ones.</p>
<p><b>Front</b>: a point is on it unless another one is as good and as cheap, and better or cheaper beyond the
noise. GMAC and parameters are exact; hours and clips/s scatter as they do between seeds (10 % where each point ran
once).</p>
<p><b>Beyond the noise</b>, of a field's effect: the same values dealt to the points at random explain as much in
fewer than 5 % of the deals.</p></section>"""
