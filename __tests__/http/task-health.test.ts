// taskHealth(): what a probe is told.

import { createEngine, type EngineDriver } from '../../lib/engine/index.js';
import { type HealthOptions, type TaskEngine, type TaskWorker, task, taskHealth } from '../../lib/index.js';
import { memory } from '../../lib/testing/index.js';
import { expresses, serve } from '../fixtures/serve.js';

const quick = task('quick', (_secret: string) => {});

describe.each(expresses)('taskHealth() on Express %s', (_version, express) => {
  async function mount(options: HealthOptions): Promise<() => Promise<{ status: number; body: unknown }>> {
    const app = express();
    app.get('/health', taskHealth(options));
    const { url } = await serve(app);
    return async () => {
      const response = await fetch(`${url}/health`);
      expect(response.headers.get('cache-control')).toBe('no-store');
      return { status: response.status, body: await response.json() };
    };
  }

  const well = { status: 200, body: { healthy: true, reasons: [] } };
  const ill = (...reasons: unknown[]) => ({ status: 503, body: { healthy: false, reasons } });

  it('is well where the store answers and the workers look for tasks', async () => {
    const engine = memory();
    const workers = [await engine.work([quick]), await engine.work([])];
    expect(await (await mount({ engine, workers, maxLag: 1000 }))()).toEqual(well);
    expect(await (await mount({ engine }))()).toEqual(well);
    expect(await (await mount({ workers }))()).toEqual(well);
    await engine.close();
  });

  it('takes the word of a worker that gives no reason', async () => {
    const worker = { health: () => ({ healthy: false, lastPollAt: undefined, running: 0 }), close: async () => {} };
    const ask = await mount({ workers: [worker as unknown as TaskWorker] });
    expect(await ask()).toEqual(ill('a worker is not healthy'));
  });

  it('tells of a worker that no longer looks, also of one that was started later', async () => {
    const engine = memory();
    const workers: TaskWorker[] = [];
    const ask = await mount({ workers });
    expect(await ask()).toEqual(well);
    workers.push(await engine.work([quick]), await engine.work([]), await engine.work([]));
    expect(await ask()).toEqual(well);
    await Promise.all([workers[1]?.close(), workers[2]?.close()]);
    expect(await ask()).toEqual(ill('the worker is closed'));
    await engine.close();
  });

  it('tells since when tasks wait for a worker, and nothing of the tasks', async () => {
    const engine = memory();
    await engine.enqueue(quick, 'secret');
    const ask = await mount({ engine, maxLag: 60_000 });
    expect(await ask()).toEqual(well);
    const since = Date.now() - 61_000;
    jest.spyOn(engine, 'stats').mockImplementation(async () => ({ ...none, oldestDueAt: new Date(since) }));
    expect(await ask()).toEqual(
      ill(`tasks have waited for a worker since ${new Date(since).toISOString()}, for 61 seconds`),
    );
    expect(await (await mount({ engine }))()).toEqual(well);
    await engine.close();
  });

  it('tells of a store that is away, before what is wrong with the workers', async () => {
    const engine = memory();
    const workers = [await engine.work([quick])];
    await engine.close();
    const away = expect.stringContaining('the engine is closed');
    expect(await (await mount({ engine, workers }))()).toEqual(ill(away, 'the worker is closed'));
  });

  it('asks an engine that cannot count whether its store answers', async () => {
    let isAway = false;
    const engine = engineWith({
      prepare: async () => {
        if (isAway) throw new Error('away');
      },
    });
    const ask = await mount({ engine });
    expect(await ask()).toEqual(well);
    isAway = true;
    expect(await ask()).toEqual(ill('mine: it is not ready: away'));
    expect(await (await mount({ engine, maxLag: 1000 }))()).toEqual(ill(expect.stringContaining('"stats()" is not')));
  });

  it('looks once for probes that come at the same time', async () => {
    let looks = 0;
    const engine = engineWith({
      stats: async () => {
        looks++;
        await new Promise((resolve) => setTimeout(resolve, 100));
        return none;
      },
    });
    const ask = await mount({ engine });
    expect(await Promise.all(Array.from({ length: 10 }, ask))).toEqual(Array(10).fill(well));
    expect(looks).toBeLessThan(10);
    await ask();
    expect(looks).toBeGreaterThan(1);
  });

  it('takes an engine of another author, whatever it throws', async () => {
    const theirs = { enqueue() {}, work() {}, get() {}, close() {}, stats: () => Promise.reject('no Error') };
    expect(await (await mount({ engine: theirs as unknown as TaskEngine }))()).toEqual(
      ill('the store does not answer'),
    );
  });

  it("leaves what a worker throws to the application's error handling, and an answered response alone", async () => {
    const broken = { health: () => JSON.parse('{') } as TaskWorker;
    const failures: unknown[] = [];
    const app = express();
    app.get('/answered', (_req, res, next) => {
      next();
      res.status(418).end();
    });
    app.get('/answered', taskHealth({ workers: [] }));
    app.get('/broken', taskHealth({ workers: [broken] }));
    app.use((error: unknown, _req: unknown, res: { sendStatus(code: number): void }, _next: unknown) => {
      failures.push(error);
      res.sendStatus(500);
    });
    const { url } = await serve(app);
    expect((await fetch(`${url}/answered`)).status).toBe(418);
    expect(failures).toEqual([]);
    expect((await fetch(`${url}/broken`)).status).toBe(500);
    expect(failures).toEqual([expect.any(SyntaxError)]);
  });
});

const none = { queued: 0, due: 0, running: 0, succeeded: 0, failed: 0, cancelled: 0 };

function engineWith(methods: Partial<EngineDriver>): TaskEngine {
  return createEngine({ name: 'mine', insert: async ({ id }) => id, close: () => {}, ...methods });
}

describe('taskHealth() refuses', () => {
  it.each([
    [undefined, 'the options must be an object'],
    [{}, 'give it "engine" or "workers"'],
    [{ workers: [], maxLag: 1000 }, '"maxLag" needs "engine"'],
    [{ engine: {} }, '"engine" must be an engine'],
    [{ workers: {} }, '"workers" must be an array of workers'],
    [{ workers: [{}] }, '"workers" must be an array of workers'],
    [{ engine: memory(), maxLag: -1 }, '"maxLag" must be milliseconds'],
    [{ engine: memory(), lag: 1 }, 'taskHealth(): unknown option "lag"'],
  ])('%p', (options, text) => {
    expect(() => taskHealth(options as HealthOptions)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_OPTION', message: expect.stringContaining(text) }),
    );
  });
});
