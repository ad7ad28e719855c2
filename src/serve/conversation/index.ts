export { besideEachOther } from "./columns.js";
export { type ChatCommand, chatHelp, createLineReader } from "./commands.js";
export { type ChatAnswer, type Conversation, createConversation } from "./conversation.js";
export { type ChatSettings, describeSettings, setSetting } from "./settings.js";
export { askAll, createSpeaker, describeAnswer, describeRatio, type Speaker } from "./speakers.js";
