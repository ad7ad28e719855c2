import type { Command } from "commander";
import { createInspectCommand } from "../inspect-command.js";
import { createGroupCommand } from "../method-command.js";

export function createCommand(): Command {
  const command = createGroupCommand("train", "Trains a model on text, on conversations, or towards a teacher.");
  return command.addCommand(createInspectCommand());
}
