export { type Device, type DeviceStatus, defaultThreads, deviceNames, isDevice, listDevices } from "./devices.js";
export { type Measurement, measure, measureProductRate, timeMs } from "./measure.js";
export { type OperatorTime, profileProgram } from "./profile.js";
export type { NamedType, Program, Signature } from "./program.js";
export { type CompileOptions, createRuntime, type Runtime, type RuntimeOptions } from "./runtime.js";
export { libraryVersion, type Tensors } from "./session.js";
