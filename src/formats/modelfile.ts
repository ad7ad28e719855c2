/** @module The Ollama Modelfile that goes beside a GGUF: `ollama create NAME -f Modelfile`. */

export interface ModelfileFacts {
  /** File name of the GGUF, in the same folder. */
  gguf: string;
  /** The model's Jinja chat template, if it has one. */
  chatTemplate?: string;
  /** Context length in tokens. */
  contextLength: number;
  /** Texts that end an answer, besides the end token, which llama.cpp knows. Defaults to none. */
  stops?: readonly string[];
  /** Parsed `generation_config.json`: sampling settings are taken from it. */
  generationConfig?: Readonly<Record<string, unknown>>;
  /** Texts of licence and notices. Defaults to none. */
  licences?: readonly string[];
}

export function renderModelfile(facts: ModelfileFacts): string {
  const { gguf, chatTemplate, contextLength, stops = [], generationConfig = {}, licences = [] } = facts;
  const parameters = [
    ["num_ctx", contextLength] as const,
    ...stops.map((stop) => ["stop", JSON.stringify(stop)] as const),
    ...samplingParameters(generationConfig),
  ];
  const lines = [
    "# Ollama: ollama create NAME -f THIS_FILE",
    `FROM ./${gguf}`,
    ...templateLines(chatTemplate),
    ...parameters.map(([name, value]) => `PARAMETER ${name} ${value}`),
    ...licences.map((text) => `LICENSE """${text.replaceAll('"""', "'''").trimEnd()}\n"""`),
  ];
  return `${lines.join("\n")}\n`;
}

/** generation_config.json's names and Ollama's. */
const sampling = { temperature: "temperature", top_p: "top_p", top_k: "top_k", repetition_penalty: "repeat_penalty" };

function samplingParameters(config: Readonly<Record<string, unknown>>): (readonly [string, number])[] {
  return Object.entries(sampling).flatMap(([ours, theirs]) => {
    const value = config[ours];
    return typeof value === "number" ? [[theirs, value] as const] : [];
  });
}

/** Ollama writes its templates in Go's language, so the Jinja one cannot be copied; the common shapes are known. */
const goTemplates: readonly { mark: string; template: string }[] = [
  {
    mark: "<|im_start|>",
    template:
      "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n",
  },
  {
    mark: "<|start_header_id|>",
    template:
      "{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>{{ end }}<|start_header_id|>assistant<|end_header_id|>\n\n",
  },
  {
    mark: "[INST]",
    template:
      '{{- range .Messages }}{{ if eq .Role "assistant" }} {{ .Content }}</s>{{ else }}[INST] {{ .Content }} [/INST]{{ end }}{{ end }}',
  },
];

function templateLines(chatTemplate: string | undefined): string[] {
  if (chatTemplate === undefined) return ['TEMPLATE """{{ .Prompt }}"""'];
  const known = goTemplates.find(({ mark }) => chatTemplate.includes(mark));
  if (known) return [`TEMPLATE """${known.template}"""`];
  return ["# No Go template is known for this model's chat template; Ollama picks one by what the GGUF holds."];
}
