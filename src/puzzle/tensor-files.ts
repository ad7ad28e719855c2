import { internal } from "../base/index.js";
import { openSafetensorsFile, writeSafetensors } from "../formats/index.js";
import { f32Tensor, type HostTensor } from "../tensor/index.js";
import { asF32 } from "./refit.js";

/** Writes named tensors as one safetensors file; the same tensors give the same bytes. */
export async function writeTensors(path: string, tensors: ReadonlyMap<string, HostTensor>): Promise<void> {
  const plan = [...tensors].map(([name, tensor]) => ({
    name,
    shape: [...tensor.shape],
    read: async () => asF32(tensor),
  }));
  await writeSafetensors(path, plan);
}

/** Every tensor of a file. */
export async function readTensors(path: string): Promise<Map<string, HostTensor>> {
  const file = await openSafetensorsFile(path);
  try {
    const tensors = new Map<string, HostTensor>();
    for (const name of file.names) {
      const { shape } = file.info(name) ?? internal(`${path} lists ${name} and does not have it`);
      tensors.set(name, f32Tensor(shape, await file.read(name)));
    }
    return tensors;
  } finally {
    await file.close();
  }
}

/** `layer-007` */
export function layerName(layer: number): string {
  return `layer-${String(layer).padStart(3, "0")}`;
}
