import type { Command } from "commander";
import { createGroupCommand } from "../method-command.js";

export function createCommand(): Command {
  return createGroupCommand("train", "Trains a model on text, on conversations, or towards a teacher.");
}
