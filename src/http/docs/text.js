// What everything else is made of: elements, texts, and the document's references. Texts are set as texts, never as HTML.

const el = (name, attributes = {}, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== undefined && child !== null));
  return element;
};

// Words in backticks and between double stars; nothing else is marked in the document's texts.
const inline = (text) =>
  text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((part) => {
    if (part.startsWith("`")) return el("code", {}, part.slice(1, -1));
    if (part.startsWith("**")) return el("strong", {}, part.slice(2, -2));
    return part;
  });

const paragraphs = (text) => (text ?? "").split("\n\n").filter(Boolean).map((part) => el("p", {}, ...inline(part)));

const resolve = (api, value) => {
  while (value?.$ref) value = value.$ref.slice(2).split("/").reduce((at, key) => at[key.replaceAll("~1", "/").replaceAll("~0", "~")], api);
  return value;
};

const nameOf = (value) => value?.$ref?.split("/").pop();

const block = (text, wraps = false) => {
  const button = el("button", { type: "button", "aria-label": "Copy" }, "copy");
  button.addEventListener("click", async () => {
    await navigator.clipboard?.writeText(text);
    button.textContent = "copied";
    setTimeout(() => (button.textContent = "copy"), 1500);
  });
  return el("div", { class: "copy" }, el("pre", { tabindex: "0", class: wraps && "wraps" }, el("code", {}, text)), button);
};

const pretty = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

// For a shell: nothing in single quotes is read, and a single quote ends them.
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

const exampleOf = (content) => {
  const [type, media] = Object.entries(content ?? {}).find(([, media]) => media.example !== undefined) ?? [];
  return type && { type, value: media.example };
};

// The command line of an operation, with what an example or a form has filled in.
const curl = (operation, { path, query = "", headers = {}, body }) => {
  const words = ["curl"];
  if (operation.security) words.push('-H "Authorization: Bearer $MRPO_KEY"');
  for (const [name, value] of Object.entries(headers)) words.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (operation.method === "delete" || (operation.method === "post" && body === undefined && !operation.form)) {
    words.push(`-X ${operation.method.toUpperCase()}`);
  }
  words.push(quoted(location.origin + path + query));
  for (const [name, field] of Object.entries(operation.form ?? {})) {
    if (field.format === "binary") words.push(`-F ${quoted(`${name}=@pairs.jsonl`)}`);
    else if (operation.formRequired.includes(name)) words.push(`-F ${quoted(`${name}=${field.example ?? field.enum?.[0] ?? ""}`)}`);
  }
  if (body !== undefined) words.push(`--json ${quoted(body)}`);
  return words.join(" ");
};
