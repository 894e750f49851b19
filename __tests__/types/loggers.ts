// Loggers that people have must fit as they are. Compiled, never run.

import bunyan from 'bunyan';
import { backgroundTasks, type Logger } from 'express-background-tasks';
import pino, { type BaseLogger } from 'pino';
import winston from 'winston';

/** As Fastify declares the logger of an app and of a request, `FastifyBaseLogger`. */
interface FastifyBaseLogger
  extends Pick<BaseLogger, 'level' | 'info' | 'error' | 'debug' | 'fatal' | 'warn' | 'trace' | 'silent'> {
  child(bindings: Record<string, unknown>, options?: object): FastifyBaseLogger;
}

export function fitAsTheyAre(fastifyLogger: FastifyBaseLogger, baseLogger: BaseLogger): void {
  backgroundTasks({ logger: pino() });
  backgroundTasks({ logger: pino().child({ module: 'tasks' }) });
  backgroundTasks({ logger: baseLogger });
  backgroundTasks({ logger: fastifyLogger });
  backgroundTasks({ logger: bunyan.createLogger({ name: 'app' }) });
  backgroundTasks({ logger: console });
}

export function fitsInOneLine(): Logger {
  const logger = winston.createLogger();
  return { error: (context, message) => logger.error(message, context) };
}
