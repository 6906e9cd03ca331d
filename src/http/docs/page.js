// The page: the document's operations by their groups, an index beside them, search, and links to each.

const main = document.getElementById("main");
const index = document.getElementById("index");
const search = document.getElementById("search");

const operationsOf = (api) =>
  Object.entries(api.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]) => {
      const form = resolve(api, operation.requestBody?.content?.["multipart/form-data"]?.schema);
      return { ...operation, path, method, form: form?.properties, formRequired: form?.required ?? [], json: Boolean(operation.requestBody?.content?.["application/json"]) };
    }));

const parametersTable = (api, parameters) =>
  el("table", {}, el("tbody", {}, ...parameters.map((parameter) =>
    el("tr", {},
      el("td", {}, el("span", { class: parameter.required ? "field required" : "field" }, parameter.name), el("br"), el("span", { class: "dim" }, parameter.in)),
      el("td", {}, el("code", {}, typeOf(api, parameter.schema)), " ", el("span", { class: "dim" }, limitsOf(resolve(api, parameter.schema))), ...paragraphs(parameter.description))))));

const answerPart = (api, status, answer) => {
  const codes = answer["x-error-codes"];
  const headers = Object.keys(answer.headers ?? {}).filter((name) => name !== "x-request-id");
  const summary = el("summary", {}, el("strong", {}, status), " ", ...inline(answer.description ?? ""));
  const details = el("details", {}, summary);
  const fill = () => {
    if (!details.open || details.dataset.filled) return;
    details.dataset.filled = "yes";
    if (codes) {
      details.append(el("table", {}, el("tbody", {}, ...codes.map((code) =>
        el("tr", {}, el("td", {}, el("code", {}, code)), el("td", {}, api["x-error-codes"][code].title))))));
    }
    if (headers.length) details.append(el("p", {}, "Headers: ", ...headers.flatMap((name) => [el("code", {}, name), " "])));
    for (const [type, media] of Object.entries(codes ? {} : answer.content ?? {})) {
      details.append(el("p", { class: "dim" }, type));
      if (media.example !== undefined) details.append(block(pretty(media.example)));
      if (media.schema) details.append(...described(api, media.schema));
    }
  };
  details.addEventListener("toggle", fill);
  details.open = status === "200";
  return details;
};

const operationPart = (api, operation) => {
  const id = operation.operationId;
  const example = exampleOf(operation.requestBody?.content);
  const schema = Object.values(operation.requestBody?.content ?? {})[0]?.schema;
  const attempt = el("details", { class: "try" }, el("summary", {}, "Try it"));
  attempt.addEventListener("toggle", () => attempt.open && !attempt.dataset.filled && (attempt.dataset.filled = "yes") && attempt.append(...tryForm(api, operation)));
  return el("section", { class: "operation", id },
    el("h3", {}, el("span", { class: `method ${operation.method}` }, operation.method), " ", el("span", { class: "path" }, operation.path), " ", el("a", { class: "anchor", href: `#${id}`, "aria-label": `Link to ${id}` }, "#")),
    el("p", {}, el("strong", {}, operation.summary), operation.security ? "" : el("span", { class: "dim" }, " · without a key")),
    ...paragraphs(operation.description),
    block(curl(operation, { path: operation.path, body: example && JSON.stringify(example.value) }), true),
    ...(operation.parameters ? [el("h4", {}, "Parameters"), parametersTable(api, operation.parameters)] : []),
    ...(schema ? [el("h4", {}, "Body"), ...(example ? [block(pretty(example.value))] : []), ...described(api, schema)] : []),
    el("h4", {}, "Answers"), ...Object.entries(operation.responses).map(([status, answer]) => answerPart(api, status, answer)),
    attempt);
};

const table = (rows) => el("table", {}, el("tbody", {}, ...rows.map((cells) => el("tr", {}, ...cells.map((cell) => el("td", {}, ...[cell].flat()))))));

const render = (api) => {
  document.getElementById("version").textContent = api.info.version;
  const all = operationsOf(api);
  const parts = [el("div", { id: "top" }, ...paragraphs(api.info.description), el("p", {}, el("a", { href: "/openapi.json" }, "/openapi.json"), ` · OpenAPI ${api.openapi} · ${all.length} operations`))];
  for (const tag of api.tags) {
    const own = all.filter((operation) => operation.tags.includes(tag.name));
    const list = el("ul", {}, ...own.map((operation) =>
      el("li", { "data-text": `${operation.method} ${operation.path} ${operation.summary} ${operation.operationId} ${tag.name}`.toLowerCase() },
        el("a", { href: `#${operation.operationId}` }, el("span", { class: `method ${operation.method}` }, operation.method), operation.summary))));
    index.append(el("div", {}, el("h2", {}, tag.name), list));
    parts.push(el("h2", {}, tag.name), ...paragraphs(tag.description), ...own.map((operation) => operationPart(api, operation)));
  }
  const limits = Object.entries(api["x-limits"]).map(([name, limit]) => [el("code", {}, name), `${limit.value} ${limit.unit}`, inline(limit.description)]);
  const codes = Object.entries(api["x-error-codes"]).map(([code, about]) => [el("code", {}, code), String(about.status), about.title]);
  parts.push(el("h2", { id: "limits" }, "Limits"), table(limits), el("h2", { id: "errors" }, "Error codes"), table(codes));
  index.append(el("div", {}, el("h2", {}, "tables"), el("ul", {}, el("li", { "data-text": "limits" }, el("a", { href: "#limits" }, "Limits")), el("li", { "data-text": "errors codes" }, el("a", { href: "#errors" }, "Error codes")))));
  main.replaceChildren(...parts);
};

const filter = () => {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const group of index.children) {
    const items = [...group.querySelectorAll("li")];
    for (const item of items) item.hidden = !words.every((word) => item.dataset.text.includes(word));
    group.hidden = items.every((item) => item.hidden);
  }
};

const links = () => [...index.querySelectorAll("li:not([hidden]) a")].filter((link) => !link.closest("[hidden]"));

const go = () => {
  const id = decodeURIComponent(location.hash.slice(1));
  for (const link of index.querySelectorAll("a")) link.toggleAttribute("aria-current", link.hash === location.hash);
  const part = id ? document.getElementById(id) : null;
  part?.scrollIntoView();
};

search.addEventListener("input", filter);
search.addEventListener("keydown", (event) => {
  if (event.key === "Enter") links()[0]?.click();
  if (event.key === "ArrowDown") links()[0]?.focus();
  if (event.key === "Escape") (search.value = ""), filter();
});
index.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const all = links();
  (all[all.indexOf(document.activeElement) + step] ?? search).focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.matches("input, textarea")) return;
  event.preventDefault();
  search.focus();
});
addEventListener("hashchange", go);

try {
  render(await (await fetch("/openapi.json")).json());
  go();
} catch (error) {
  document.getElementById("status").textContent = `The document could not be read: ${error.message}`;
}
