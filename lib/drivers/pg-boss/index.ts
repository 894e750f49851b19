/**
 * An engine on pg-boss, for PostgreSQL, what speaks its protocol, and PGlite.
 * It imports nothing of pg-boss: the user makes the instance, starts it and stops it.
 *
 * @module pg-boss
 */

import { createEngine } from '../../engine/create-engine.js';
import type { TaskEngine } from '../../engine/engine.js';
import { BackgroundTasksError } from '../../errors.js';
import { isObject } from '../../foreign-value.js';
import type { Boss } from './boss.js';
import { PgBossDriver } from './driver.js';

/**
 * An engine on pg-boss 12.35 or later. Start pg-boss before its first use, and close the engine before you stop pg-boss. A
 * task whose worker died runs again once pg-boss's supervision has found it: after 15 s and the longer one of pg-boss's
 * `superviseIntervalSeconds` and `monitorIntervalSeconds`. No attempt may last longer than a day.
 *
 * @throws BackgroundTasksError `ERR_INVALID_OPTION` for anything else.
 * @example
 * const boss = await new PgBoss('postgres://localhost/app').start();
 * app.use(backgroundTasks({ engine: pgBoss(boss) }));
 */
export function pgBoss(boss: Boss): TaskEngine {
  if (!isObject(boss) || typeof boss.isTimekeeping !== 'function') {
    throw new BackgroundTasksError(
      'ERR_INVALID_OPTION',
      'pgBoss(): the argument must be an instance of PgBoss, of pg-boss 12.35 or later',
    );
  }
  return createEngine(new PgBossDriver(boss));
}
