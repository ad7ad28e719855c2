export { cutWindows, measurePerplexity, type PerplexityOptions, type PerplexityResult } from "./perplexity.js";
