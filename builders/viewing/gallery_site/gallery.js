// Script of the gallery's page. Data files are scripts that call gallery.index, gallery.audit, gallery.measures and
// gallery.receive.
// All data is inserted as text, never as markup.
"use strict";

const gallery = (() => {
  const $ = (id) => document.getElementById(id);
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const classes = new Map(); // data of opened classes
  const waiting = new Map(); // class id -> callback
  const pages = {}; // data of the pages "audit" and "measures", once they are loaded
  let all, opened, shown = [], position = -1;

  // --- sprites ---

  function tile(element, sprite, number, columns, rows) {
    // Percentages work for a tile of any size.
    const [across, down] = [number % columns, Math.floor(number / columns)];
    element.style.backgroundImage = `url("${sprite}")`;
    element.style.backgroundSize = `${columns * 100}% ${rows * 100}%`;
    element.style.backgroundPosition = `${columns > 1 ? (100 * across) / (columns - 1) : 0}% ${rows > 1 ? (100 * down) / (rows - 1) : 0}%`;
    return element;
  }

  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) {
        seen.unobserve(target);
        target.fill();
      }
    }
  }, { rootMargin: "300px" });

  // --- the list of classes ---

  function listed(entry) {
    const blocks = make("div", { className: "blocks" });
    const row = make("a", { className: "class", href: `#${encodeURIComponent(entry.id)}` },
      make("h2", {}, entry.name, " ", make("small", {}, `${entry.id} · ${entry.counts.map((n) => n.toLocaleString()).join(" · ")} images`)), blocks);
    const perSource = 6;
    row.fill = () => all.sources.forEach((source, which) => {
      const block = make("div", { className: "block", role: "img", ariaLabel: `${Math.min(perSource, entry.counts[which])} ${source.title} images of ${entry.name}` });
      block.dataset.title = source.title;
      for (let number = 0; number < Math.min(perSource, entry.counts[which]); number++) {
        block.append(tile(make("div", { className: "tile" }), `sprites/${encodeURIComponent(entry.id)}/list.webp`,
          which * perSource + number, perSource * all.sources.length, 1));
      }
      blocks.append(block);
    });
    seen.observe(row);
    return row;
  }

  function showList() {
    opened = null;
    $("filters").hidden = true;
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = all.classes.filter((entry) => words.every((word) => entry.text.includes(word)));
    $("main").replaceChildren(...found.map(listed));
    $("count").value = `${found.length.toLocaleString()} of ${all.classes.length.toLocaleString()} classes`;
    document.title = all.sources[0].settings.name;
  }

  // --- the page of a class ---

  function open(id) {
    if (classes.has(id)) return showClass(classes.get(id));
    $("main").replaceChildren(make("p", {}, "…"));
    waiting.set(id, showClass);
    const script = make("script", { src: `data/classes/${encodeURIComponent(id)}.js` });
    script.onerror = () => $("main").replaceChildren(make("p", {}, `There is no class “${id}”. `, make("a", { href: "#" }, "All classes")));
    document.head.append(script);
  }

  function rowsOf(data) {
    return data.parts.flatMap((block, which) => block.rows.map((row, number) => {
      const about = Object.fromEntries(data.columns.map((name, column) => [name, row[column + 2]]));
      return { ...about, key: row[0], extension: row[1], source: block.title, which, number, total: block.rows.length };
    }));
  }

  function showClass(data) {
    opened = data;
    const entry = all.classes.find((found) => found.id === data.id) ?? { name: data.id };
    document.title = `${entry.name} · ${all.sources[0].settings.name}`;
    data.rows ??= rowsOf(data);
    const options = (select, first, values) => select.replaceChildren(make("option", { value: "" }, first), ...values.map((value) => make("option", { value }, value)));
    options($("source"), "all sources", all.sources.map((source) => source.title));
    options($("background"), "any background", [...new Set(data.rows.map((row) => row.background).filter(Boolean))].sort());
    const kinds = Object.entries(all.audit?.found ?? {}).filter(([, count]) => count).map(([kind]) => kind);
    const measured = Object.keys(all.measures?.kinds ?? {}).filter((kind) => data.rows.some((row) => row.findings.includes(kind)));
    $("flag").replaceChildren(...[["", "any flag"], ["1", "flagged"], ["0", "not flagged"], ["-1", "not checked"],
      ...kinds.map((kind) => [kind, `audit: ${kind}`]), ...measured.map((kind) => [kind, `measures: ${kind}`])]
      .map(([value, text]) => make("option", { value }, text)));
    $("filters").hidden = false;
    showRows();
  }

  function showRows() {
    const [source, flag, background] = ["source", "flag", "background"].map((id) => $(id).value);
    const words = $("words").value.toLowerCase().split(/\s+/).filter(Boolean);
    shown = opened.rows.filter((row) => (!source || row.source === source) && (!background || row.background === background)
      && (!flag || String(row.nsfw) === flag || row.findings.includes(flag)) && words.every((word) => (row.prompt ?? "").toLowerCase().includes(word) || word === `#${row.prompt_index}`));
    const entry = all.classes.find((found) => found.id === opened.id);
    const grid = make("div", { className: "grid" }, ...shown.map((row, number) => {
      const sprite = Math.floor(row.number / all.perSprite), first = sprite * all.perSprite;
      const count = Math.min(all.perSprite, row.total - first);
      const button = make("button", { className: row.nsfw === 1 || row.findings.length ? "tile flagged" : "tile", type: "button",
        ariaLabel: `${row.source}: ${row.prompt || row.key}`, title: row.prompt || row.key, onclick: () => view(number) });
      button.fill = () => tile(button, `sprites/${encodeURIComponent(opened.id)}/${encodeURIComponent(row.source)}-${sprite}.webp`, row.number - first,
        Math.min(all.columns, count), Math.ceil(count / all.columns));
      seen.observe(button);
      return button;
    }));
    $("main").replaceChildren(make("h2", {}, entry ? entry.name : opened.id, " ", make("small", {}, opened.id)), grid);
    $("count").value = `${shown.length.toLocaleString()} of ${opened.rows.length.toLocaleString()} images`;
  }

  // --- the pages of the audit and of the measures ---

  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const linked = (id) => make("a", { href: `#${encodeURIComponent(id)}` }, all.classes.find((entry) => entry.id === id)?.name.split(", ")[0] ?? id);

  function openPage(name) {
    opened = null;
    $("filters").hidden = true;
    $("count").value = "";
    document.title = `${name} · ${all.sources[0].settings.name}`;
    if (pages[name]) return showPage(name);
    $("main").replaceChildren(make("p", {}, "…"));
    document.head.append(make("script", { src: `data/${name}.js` }));
  }

  function showPage(name) {
    if (location.hash === `#/${name}`) $("main").replaceChildren(...{ audit: auditPage, measures: measuresPage }[name](all[name], pages[name]));
  }

  function table(headings, rows, label) {
    return make("div", { className: "wide" }, make("table", { ariaLabel: label },
      make("thead", {}, make("tr", {}, ...headings.map((heading) => make("th", { scope: "col" }, heading)))),
      make("tbody", {}, ...rows.map((cells) => make("tr", {}, ...cells.map((cell) => make("td", {}, ...[cell].flat())))))));
  }

  function auditPage(summary, audit) {
    const total = audit.classes.reduce((sum, entry) => sum + entry.num_images, 0);
    const kinds = table(["finding", "images", "share"], Object.entries(summary.found).map(([kind, count]) => [kind, count.toLocaleString(), percent(count / total)]), "findings");
    const others = (entries, text) => (entries ?? []).flatMap((entry, number) => [number ? ", " : "", ...text(entry), ` ${percent(entry.share)}`]);
    const classes = [...audit.classes].sort((a, b) => (a.share ?? 2) - (b.share ?? 2)).map((entry) => [
      [linked(entry.wnid)], entry.num_images.toLocaleString(), entry.share === undefined ? "" : percent(entry.share),
      others(entry.runner_ups, (other) => [linked(other.wnid)]), others(entry.senses, (sense) => [make("span", { title: sense.definition }, `${sense.lemma} (${sense.wnid})`)]),
      entry.diversity?.toFixed(3) ?? "", Object.entries(entry.found).map(([kind, count]) => `${kind} ${count}`).join(", ")]);
    const siblings = audit.groups.flatMap((family) => [
      make("h3", {}, family.parent, " ", make("small", {}, `${percent(family.accuracy)} of the images look most like their own class among these`)),
      table(["labeled as", ...family.classes.map((id) => linked(id))], family.classes.map((id, row) => [[linked(id)], ...family.confusion[row].map(String)]), `confusion within ${family.parent}`)]);
    return [make("h2", {}, "Audit"),
      make("p", {}, summary.scorer ? `Checked with ${summary.scorer.model}. ${summary.note}` : "Checked without an image-text model."), kinds,
      make("h3", {}, "Classes, the least recognized first"),
      table(["class", "images", "recognized", "mistaken for", "other senses of its name", "diversity", "findings"], classes, "classes"), ...siblings];
  }

  function measuresPage(summary, classes) {
    const rows = classes.map(([id, count, values]) => [[linked(id)], count.toLocaleString(), ...values]);
    const ranking = rows.length ? [make("h3", {}, `Classes, the lowest ${summary.rankedBy} first`), table(["class", "images", ...summary.columns], rows, "classes")] : [];
    return [make("h2", {}, "What the images are worth, in numbers"), make("p", {}, summary.about), make("p", {}, make("code", {}, summary.command)),
      table(["measure", "value", "95 % interval", "what it says"], summary.numbers, "measures"), ...summary.notes.map((note) => make("p", {}, note)),
      make("h3", {}, "Marked images on the pages of the classes"), table(["mark", "what it says"], Object.entries(summary.kinds), "marks"), ...ranking];
  }

  // --- one image ---

  function figure(row) {
    const image = make("img", { src: `images/${encodeURIComponent(row.source)}/${encodeURIComponent(`${row.key.replaceAll("/", "_")}.${row.extension}`)}`, alt: row.prompt || row.key });
    image.onload = () => image.classList.toggle("small", image.naturalWidth < 128);
    return make("figure", {}, image, make("figcaption", {}, row.source));
  }

  function view(number) {
    position = (number + shown.length) % shown.length;
    const row = shown[position];
    const twins = opened.rows.filter((other) => other.key === row.key && other.source !== row.source && other.source !== "real" && row.source !== "real");
    $("pictures").replaceChildren(...[row, ...twins].sort((a, b) => a.which - b.which).map(figure));
    const flags = { "-1": "not checked", 0: "not flagged", 1: "flagged" };
    const facts = [["key", row.key], ["prompt", row.prompt], ["prompt number", row.prompt_index >= 0 ? `#${row.prompt_index}` : ""], ["seed", row.seed], ["background", row.background], ["guidance", row.guidance_scale],
      ["steps", row.num_inference_steps], ["flag", flags[row.nsfw]], ["finding", row.audit], ["generated again", row.attempt ? `${row.attempt} times` : ""]];
    twins.forEach((twin) => facts.push([`${twin.source}: prompt`, twin.prompt === row.prompt ? "the same" : twin.prompt],
      [`${twin.source}: guidance`, twin.guidance_scale], [`${twin.source}: steps`, twin.num_inference_steps]));
    $("about").replaceChildren(...facts.filter(([, value]) => value !== undefined && value !== null && value !== "")
      .flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]));
    if (row.seed !== undefined && row.seed !== null) {
      $("about").append(make("dt", {}, "generate again"), make("dd", {}, make("code", {}, `fakeit-build redo ${quoted(all.sources[row.which].root)} ${row.key}`)));
    }
    if (!$("viewer").open) $("viewer").showModal();
  }

  const quoted = (text) => (/^[\w./:@=-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);

  // --- events ---

  function route() {
    const id = decodeURIComponent(location.hash.slice(1));
    if ($("viewer").open) $("viewer").close();
    if (id === "/audit" || id === "/measures") openPage(id.slice(1));
    else if (id) open(id);
    else showList();
    scrollTo(0, 0);
  }

  function start() {
    for (const entry of all.classes) entry.text = `${entry.id} ${entry.name} ${entry.words}`.toLowerCase();
    const formats = { prompt: (value) => `prompt “${value}”`, prompts_source: (value) => `prompts of ${value}`, images_per_prompt: (value) => `${value} images a prompt`, guidance_scale: (value) => `guidance ${value}`, num_inference_steps: (value) => `${value} steps`,
      adapters: (value) => `adapter ${value.join(", ").replace(/@(?:sha256:)?([0-9a-f]{8})[0-9a-f]+/g, "@$1…")}` };
    const settings = (source) => Object.entries(source.settings).map(([name, value]) => formats[name]?.(value) ?? value).join(" · ");
    $("settings").textContent = all.sources.map((source) => `${source.title}: ${settings(source)}`).join("  |  ");
    for (const name of ["audit", "measures"]) $(name).hidden = !all[name];
    $("search").addEventListener("input", () => {
      if (location.hash.length > 1) location.hash = "";
      else showList();
    });
    for (const id of ["source", "flag", "background", "words"]) $(id).addEventListener("input", showRows);
    addEventListener("hashchange", route);
    addEventListener("keydown", (event) => {
      if ($("viewer").open) {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (step) view(position + step);
      } else if (event.key === "/" && document.activeElement !== $("search") && document.activeElement !== $("words")) {
        event.preventDefault();
        $("search").focus();
      } else if (event.key === "Escape" && location.hash.length > 1) {
        location.hash = "";
      }
    });
    $("viewer").addEventListener("close", () => document.querySelectorAll(".grid .tile")[position]?.focus());
    route();
  }

  return {
    index(content) { all = content; start(); },
    audit(content) { pages.audit = content; showPage("audit"); },
    measures(content) { pages.measures = content; showPage("measures"); },
    receive(data) {
      classes.set(data.id, data);
      waiting.get(data.id)?.(data);
      waiting.delete(data.id);
    },
  };
})();
