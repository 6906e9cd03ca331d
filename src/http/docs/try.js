// Trying an operation from the page: a form of its parameters, and what the server says. The key never leaves memory but as a header.

const MAX_SHOWN = 200_000; // characters of an answer

const keyField = document.getElementById("key");

const tryForm = (api, operation) => {
  const inputs = (operation.parameters ?? []).map((parameter) => {
    const schema = resolve(api, parameter.schema);
    const input = el("input", { placeholder: typeOf(api, parameter.schema), required: parameter.required, autocomplete: "off", "data-name": parameter.name });
    return { parameter, schema, input };
  });
  const example = exampleOf(operation.requestBody?.content)?.value;
  const body = operation.json && el("textarea", { rows: "10", spellcheck: "false", "aria-label": "Body" });
  if (body && example !== undefined) body.value = pretty(example);
  const files = Object.entries(operation.form ?? {}).map(([name, field]) => {
    const input = el("input", { type: field.format === "binary" ? "file" : "text", value: field.format === "binary" ? undefined : field.example });
    return { name, input, isFile: field.format === "binary" };
  });
  const command = el("div");
  const output = el("div", { role: "status" });
  let abort;

  const target = () => {
    let path = operation.path;
    const query = new URLSearchParams();
    const headers = {};
    for (const { parameter, input } of inputs) {
      if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, encodeURIComponent(input.value || `{${parameter.name}}`));
      else if (input.value === "") continue;
      else if (parameter.in === "query") query.set(parameter.name, input.value);
      else headers[parameter.name] = input.value;
    }
    return { path, query: query.size ? `?${query}` : "", headers };
  };
  const show = () => {
    const { path, query, headers } = target();
    command.replaceChildren(block(curl(operation, { path, query, headers, body: body?.value }), true));
  };
  const send = async (event) => {
    event.preventDefault();
    const { path, query, headers } = target();
    if (keyField.value) headers.authorization = `Bearer ${keyField.value}`;
    let content;
    if (body) {
      headers["content-type"] = "application/json";
      content = body.value;
    } else if (operation.form) {
      content = new FormData();
      for (const { name, input, isFile } of files) {
        if (isFile && input.files[0]) content.append(name, input.files[0]);
        else if (!isFile && input.value) content.append(name, input.value);
      }
    }
    abort?.abort();
    abort = new AbortController();
    output.replaceChildren(el("p", { class: "dim" }, "Asking …"));
    try {
      const answer = await fetch(path + query, { method: operation.method.toUpperCase(), headers, body: content, signal: abort.signal, credentials: "omit" });
      await showAnswer(answer, output);
    } catch (error) {
      output.replaceChildren(el("p", {}, error.name === "AbortError" ? "Stopped." : `No answer: ${error.message}`));
    }
  };
  const label = (name, input, text) => el("label", {}, el("span", { class: "field" }, name), " ", el("span", { class: "dim" }, text ?? ""), input);
  const form = el("form", { onsubmit: send, oninput: show },
    ...inputs.map(({ parameter, input }) => label(parameter.name, input, parameter.in)),
    ...files.map(({ name, input }) => label(name, input)),
    body,
    el("div", { class: "row" }, el("button", { type: "submit" }, "Send"), el("button", { type: "button", onclick: () => abort?.abort() }, "Stop")));
  show();
  return [form, command, output];
};

const showAnswer = async (answer, output) => {
  const type = answer.headers.get("content-type") ?? "";
  const head = el("p", {}, el("strong", {}, `${answer.status} ${answer.statusText}`), " ", el("span", { class: "dim" }, `${type} · ${answer.headers.get("x-request-id") ?? ""}`));
  if (!/json|text|csv/.test(type)) {
    const blob = await answer.blob();
    const url = URL.createObjectURL(blob);
    output.replaceChildren(head, el("a", { href: url, download: "answer" }, `Save ${blob.size} bytes`));
    return;
  }
  const code = el("code");
  output.replaceChildren(head, el("pre", { tabindex: "0" }, code));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    text += value;
    code.textContent = text.slice(0, MAX_SHOWN);
    if (text.length > MAX_SHOWN) {
      await reader.cancel();
      break;
    }
  }
  if (/json/.test(type) && text.length <= MAX_SHOWN) code.textContent = pretty(JSON.parse(text || "null"));
};
