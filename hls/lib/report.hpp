// The page of `luge cosim --report`: figures, charts, where the cycles of every port went, coverage. One file, nothing loaded from elsewhere.
// For benches (C++20).
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace hls {

// What a bench gives the page besides its coverage.
struct Charts {
  typedef std::vector<std::pair<std::string, double>> Parts;  // name, amount
  std::map<std::string, std::vector<std::pair<double, double>>> lines;        // title ("what over what"): x, y
  std::map<std::string, std::vector<std::pair<std::string, Parts>>> stacks;   // title: rows, each a bar of parts
  std::map<std::string, Parts> bars;                                          // title: one bar each
};

class Report {
 public:
  struct Bin { std::string group, name; uint64_t hits; };
  std::string title, verdict;
  std::vector<std::pair<std::string, std::string>> figures;  // name, value; in order
  Charts charts;
  std::vector<Bin> bins;

  bool write(const std::string &path) {
    file_ = std::fopen(path.c_str(), "w");
    if (!file_) return false;
    head();
    if (!figures.empty()) show_figures();
    for (auto &[t, points] : charts.lines) line(t, points);
    for (auto &[t, parts] : charts.bars) bar_chart(t, parts);
    for (auto &[t, rows] : charts.stacks) stack(t, rows);
    auto ports = handshakes();
    if (!ports.empty()) stack("What the ports did, in shares of all cycles", ports);
    coverage();
    put("</main></html>\n");
    return std::fclose(file_) == 0;
  }

 private:
  FILE *file_ = nullptr;
  void put(const std::string &s) { std::fwrite(s.data(), 1, s.size(), file_); }
  static std::string number(double x, const char *format = "%.4g") {
    char text[40];
    std::snprintf(text, sizeof text, format, x);
    return text;
  }
  static std::string thousands(uint64_t n) {
    std::string s = std::to_string(n);
    for (int at = (int)s.size() - 3; at > 0; at -= 3) s.insert((size_t)at, "\u202f");
    return s;
  }
  static std::string text(const std::string &s) {
    std::string r;
    for (char c : s) c == '<' ? r += "&lt;" : c == '&' ? r += "&amp;" : c == '"' ? r += "&quot;" : r += c;
    return r;
  }

  void head() {
    put("<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>" + text(title) + "</title><style>"
        ":root{color-scheme:light dark;--ink:#1d2733;--soft:#66727f;--line:#dde3e9;--card:#fff;--page:#f4f6f8;--a:#2a6db0;--hole:#f6c8c0;--ok:#2f7d4f}"
        "@media(prefers-color-scheme:dark){:root{--ink:#e4e9ee;--soft:#93a0ad;--line:#303a45;--card:#1b232c;--page:#11171d;--a:#69a8e6;--hole:#6b2e25;--ok:#6fc391}}"
        "body{font:15px/1.45 system-ui,sans-serif;margin:0;background:var(--page);color:var(--ink)}main{max-width:72em;margin:0 auto;padding:1.5em}"
        "h1{font-size:1.5em;margin:0}h2{font-size:1.05em;margin:0 0 .6em}p.verdict{color:var(--ok);margin:.3em 0 1.2em;font-weight:600}"
        "section{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:1em 1.2em;margin:0 0 1em}"
        ".tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(15em,1fr));gap:.8em}.tiles b{display:block;font-size:1.15em;font-variant-numeric:tabular-nums}.tiles span{color:var(--soft);font-size:.87em}"
        ".groups{columns:4 14em;column-gap:2em}.group{break-inside:avoid;margin:0 0 1.1em}.group h3{font-size:.9em;margin:0 0 .25em}.group div{display:flex;justify-content:space-between;gap:1em;font-size:.85em;color:var(--soft);border-bottom:1px solid var(--line)}"
        ".group div b{font-weight:500;color:var(--ink);font-variant-numeric:tabular-nums}.group div.hole{background:var(--hole)}svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font-size:11px}svg .k{fill:var(--ink)}"
        ".legend{display:flex;flex-wrap:wrap;gap:.2em 1.2em;font-size:.85em;color:var(--soft);margin:.6em 0 0}.legend i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em}</style><main><h1>" +
        text(title) + "</h1><p class=verdict>" + text(verdict) + "</p>");
  }
  void show_figures() {
    put("<section><div class=tiles>");
    for (auto &[k, v] : figures) put("<div><b>" + text(v) + "</b><span>" + text(k) + "</span></div>");
    put("</div></section>");
  }

  // A round step that gives four to eight marks up to `most`.
  static double step_of(double most) {
    double s = std::pow(10, std::floor(std::log10(most / 4)));
    while (most / s > 8) s *= most / s > 20 ? 5 : 2;
    return s;
  }
  void line(const std::string &t, const std::vector<std::pair<double, double>> &points) {
    double mx = 0, my = 0;
    for (auto &[x, y] : points) mx = std::max(mx, x), my = std::max(my, y);
    if (mx <= 0) return;
    if (my <= 0) my = 1;
    auto px = [&](double x) { return 50 + 930 * x / mx; };
    auto py = [&](double y) { return 205 - 190 * y / my; };
    put("<section><h2>" + text(t) + "</h2><svg viewBox=\"0 0 1000 230\">");
    for (double y = 0, s = step_of(my); y <= my * 1.0001; y += s)
      put("<line x1=50 x2=980 y1=" + number(py(y)) + " y2=" + number(py(y)) + " stroke=\"var(--line)\"/><text x=44 y=" + number(py(y) + 4) + " text-anchor=end>" + number(y) + "</text>");
    for (double x = 0, s = step_of(mx); x <= mx * 1.0001; x += s) put("<text x=" + number(px(x)) + " y=222 text-anchor=middle>" + number(x, "%.6g") + "</text>");
    std::string way;
    for (auto &[x, y] : points) way += number(px(x)) + "," + number(py(y)) + " ";
    put("<polyline fill=none stroke=\"var(--a)\" stroke-width=1.6 points=\"" + way + "\"/></svg></section>");
  }
  void bar_chart(const std::string &t, const Charts::Parts &parts) {
    double most = 0;
    for (auto &[n, v] : parts) most = std::max(most, v);
    if (most <= 0) return;
    double wide = 930.0 / (double)parts.size();
    put("<section><h2>" + text(t) + "</h2><svg viewBox=\"0 0 1000 230\">");
    for (double y = 0, s = step_of(most); y <= most * 1.0001; y += s)
      put("<line x1=50 x2=980 y1=" + number(205 - 185 * y / most) + " y2=" + number(205 - 185 * y / most) + " stroke=\"var(--line)\"/><text x=44 y=" + number(209 - 185 * y / most) + " text-anchor=end>" + number(y) + "</text>");
    double x = 50;
    for (auto &[n, v] : parts) {
      double high = 185 * v / most, bar = std::min(wide * 0.7, 60.0);
      put("<rect fill=\"var(--a)\" rx=2 x=" + number(x + (wide - bar) / 2) + " y=" + number(205 - high) + " width=" + number(bar) + " height=" + number(high) + "><title>" + text(n) + ": " + number(v) + "</title></rect><text x=" +
          number(x + wide / 2) + " y=222 text-anchor=middle>" + text(n) + "</text>");
      x += wide;
    }
    put("</svg></section>");
  }
  // Each row a bar of 100 %.
  void stack(const std::string &t, const std::vector<std::pair<std::string, Charts::Parts>> &rows) {
    const char *colours[] = {"#2a6db0", "#d9822b", "#8fb7a1", "#c9d2db", "#9a5fb0", "#b5485a"};
    put("<section><h2>" + text(t) + "</h2><svg viewBox=\"0 0 1000 " + std::to_string(24 * rows.size() + 4) + "\">");
    std::vector<std::string> names;
    int y = 2;
    for (auto &[label, parts] : rows) {
      double sum = 0, x = 190;
      for (auto &[n, v] : parts) sum += v;
      put("<text class=k x=182 y=" + std::to_string(y + 14) + " text-anchor=end>" + text(label) + "</text>");
      for (auto &[n, v] : parts) {
        auto it = std::find(names.begin(), names.end(), n);
        size_t colour = (size_t)(it - names.begin());
        if (it == names.end()) names.push_back(n);
        double share = sum > 0 ? v / sum : 0, w = 800 * share;
        if (share <= 0) continue;
        put("<rect x=" + number(x) + " y=" + std::to_string(y) + " width=" + number(w) + " height=19 fill=\"" + colours[colour % 6] + "\"><title>" + text(label + ", " + n) + ": " + number(100 * share) + " %</title></rect>");
        if (share >= 0.06) put("<text x=" + number(x + 5) + " y=" + std::to_string(y + 14) + " style=\"fill:" + (colour % 6 == 2 || colour % 6 == 3 ? "#1d2733" : "#fff") + "\">" + number(100 * share, "%.0f") + " %</text>");
        x += w;
      }
      y += 24;
    }
    put("</svg><div class=legend>");
    for (size_t i = 0; i < names.size(); i++) put("<span><i style=\"background:" + std::string(colours[i % 6]) + "\"></i>" + text(names[i]) + "</span>");
    put("</div></section>");
  }

  static bool is_state(const std::string &n) { return n == "idle" || n == "ready alone" || n == "waiting" || n == "transfer"; }
  // Groups that are handshakes, as rows for stack().
  std::vector<std::pair<std::string, Charts::Parts>> handshakes() {
    std::vector<std::pair<std::string, Charts::Parts>> rows;
    std::map<std::string, std::map<std::string, double>> seen;
    std::vector<std::string> order;
    for (auto &b : bins) {
      if (!is_state(b.name)) continue;
      if (!seen.count(b.group)) order.push_back(b.group);
      seen[b.group][b.name] = (double)b.hits;
    }
    for (auto &g : order)
      if (seen[g].count("transfer")) rows.push_back({g, {{"transfer", seen[g]["transfer"]}, {"valid waits for ready", seen[g]["waiting"]}, {"ready waits for valid", seen[g]["ready alone"]}, {"neither", seen[g]["idle"]}}});
    return rows;
  }
  void coverage() {
    std::vector<std::string> order;
    std::map<std::string, std::vector<const Bin *>> groups;
    for (auto &b : bins) {
      if (!groups.count(b.group)) order.push_back(b.group);
      groups[b.group].push_back(&b);
    }
    put("<section><h2>Coverage</h2><div class=groups>");
    for (auto &g : order) {
      put("<div class=group><h3>" + text(g) + "</h3>");
      for (auto *b : groups[g]) put(std::string("<div") + (b->hits ? "" : " class=hole") + ">" + text(b->name) + "<b>" + thousands(b->hits) + "</b></div>");
      put("</div>");
    }
    put("</div></section>");
  }
};

}  // namespace hls
