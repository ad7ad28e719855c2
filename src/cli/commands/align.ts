import type { Command } from "commander";
import { createGroupCommand } from "../method-command.js";

export function createCommand(): Command {
  return createGroupCommand("align", "Aligns a model with preferences and rewards.");
}
