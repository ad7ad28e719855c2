export {
  createMonitors,
  type JudgedAnswer,
  type MonitoredStep,
  type MonitorLimit,
  type MonitorName,
  type MonitorOptions,
  type MonitorRecord,
  type Monitors,
  monitorNotices,
  monitorParts,
  stopReason,
} from "./monitors.js";
export * from "./rewards/index.js";
