/** @module What one side pushes and the other reads, in order: callbacks become an async iterable. */

export interface Channel<T> extends AsyncIterable<T> {
  push(value: T): void;
  /** What was pushed is still read; then the iteration ends, or throws. */
  end(error?: unknown): void;
}

/** For one reader. */
export function createChannel<T>(): Channel<T> {
  const values: T[] = [];
  let ended: { error?: unknown } | undefined;
  let wake = () => {};
  return {
    push(value) {
      values.push(value);
      wake();
    },
    end(error) {
      ended ??= error === undefined ? {} : { error };
      wake();
    },
    async *[Symbol.asyncIterator]() {
      for (;;) {
        while (values.length > 0) yield values.shift()!;
        if (ended && "error" in ended) throw ended.error;
        if (ended) return;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    },
  };
}

/** Reads several iterables at once; what comes first is given first. */
export async function* merge<T>(sources: readonly AsyncIterable<T>[]): AsyncIterable<T> {
  if (sources.length === 1) {
    yield* sources[0]!;
    return;
  }
  const channel = createChannel<T>();
  const read = async (source: AsyncIterable<T>) => {
    for await (const value of source) channel.push(value);
  };
  Promise.all(sources.map(read)).then(
    () => channel.end(),
    (error: unknown) => channel.end(error),
  );
  yield* channel;
}
