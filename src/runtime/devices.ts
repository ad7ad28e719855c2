import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { EspalierError, messageOf } from "../base/index.js";
import { createGraph, emitOnnx } from "../graph/index.js";
import { builtInProviders, openSession } from "./session.js";

interface DeviceInfo {
  /** ONNX Runtime's name of the execution provider. */
  provider: string;
  /** What the device needs, for the message that it is missing. */
  needs: string;
}

const devices = {
  cpu: { provider: "cpu", needs: "nothing" },
  cuda: { provider: "cuda", needs: "Linux, an NVIDIA GPU and ONNX Runtime's CUDA libraries" },
  webgpu: { provider: "webgpu", needs: "a GPU with a Vulkan, Metal or Direct3D 12 driver" },
  dml: { provider: "dml", needs: "Windows with a Direct3D 12 GPU" },
  coreml: { provider: "coreml", needs: "macOS" },
} as const satisfies Record<string, DeviceInfo>;

export type Device = keyof typeof devices;

export const deviceNames = Object.keys(devices) as readonly Device[];

export interface DeviceStatus {
  device: Device;
  present: boolean;
  /** Why it is not present, or absent. */
  reason?: string;
}

/** Every device that has a name here, with whether this machine has it. Opens a small session on each candidate. */
export async function listDevices(): Promise<DeviceStatus[]> {
  const statuses: DeviceStatus[] = [];
  for (const device of deviceNames) statuses.push(await probe(device));
  return statuses;
}

/** ONNX Runtime's name of the provider of `device`. @throws EspalierError that names the devices present. */
export async function resolveDevice(device: string): Promise<string> {
  if (device === "cpu") return devices.cpu.provider;
  const status = isDevice(device) ? await probe(device) : undefined;
  if (status?.present) return devices[status.device].provider;
  const present = (await listDevices()).filter((other) => other.present).map((other) => other.device);
  throw new EspalierError({
    where: "device",
    expected: `one of ${present.join(", ")}, which are present`,
    found: status ? `${device}: ${status.reason}` : device,
    fix: isDevice(device) ? `${device} needs ${devices[device].needs}` : `devices are ${deviceNames.join(", ")}`,
    exitCode: 2,
  });
}

export function isDevice(name: string): name is Device {
  return Object.hasOwn(devices, name);
}

async function probe(device: Device): Promise<DeviceStatus> {
  const { provider } = devices[device];
  if (!(await builtInProviders()).includes(provider)) {
    return { device, present: false, reason: "the installed ONNX Runtime has no such provider" };
  }
  try {
    const session = await openSession(smallestModel(), { provider, threads: 1, arena: false });
    await session.dispose();
    return { device, present: true };
  } catch (error) {
    return { device, present: false, reason: firstLine(messageOf(error)) };
  }
}

function firstLine(text: string): string {
  return text.split("\n", 1)[0]!.trim();
}

/** The smallest model that makes a provider start. */
function smallestModel(): Uint8Array {
  const g = createGraph("probe");
  g.output("y", g.neg(g.input("x", [1])));
  return emitOnnx(g).bytes;
}

/** One thread for each physical core that this process may use: two threads on one core slow matrix products down. */
export function defaultThreads(): number {
  return Math.max(1, Math.min(availableParallelism(), physicalCores() ?? Number.POSITIVE_INFINITY));
}

/** Counted on Linux only; elsewhere unknown. */
function physicalCores(): number | undefined {
  let text: string;
  try {
    text = readFileSync("/proc/cpuinfo", "utf8");
  } catch {
    return undefined;
  }
  const cores = new Set(
    text
      .split("\n\n")
      .filter((block) => /^core id/m.test(block))
      .map((block) => `${/^physical id\s*:\s*(\d+)/m.exec(block)?.[1]}/${/^core id\s*:\s*(\d+)/m.exec(block)?.[1]}`),
  );
  return cores.size || undefined;
}
